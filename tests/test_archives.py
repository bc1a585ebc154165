"""What archives hold: names in any script, what must not be unpacked, and counts that are known before the list is read."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile

import pytest

from alexnet import archives


def zip_of(*names: str) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, name.encode())
    return file


def test_members_of_a_zip_are_read_from_a_file_or_from_memory(tmp_path):
    file = zip_of("a.txt", "folder/", "folder/b.txt")
    (tmp_path / "a.zip").write_bytes(file.getvalue())
    for source in (file, tmp_path / "a.zip"):
        found = {}
        for member in archives.members(source):
            with member.open() as stream:
                found[member.name] = (member.bytes, member.fault, stream.read())
        assert found == {"a.txt": (5, None, b"a.txt"), "folder/b.txt": (12, None, b"folder/b.txt")}


def test_a_name_in_utf8_that_does_not_say_so_is_read_as_such():
    file = zip_of("猫/é.jpg")
    raw = bytearray(file.getvalue())
    for magic, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # bit 11 of the flags says UTF-8; macOS leaves it out
        at = raw.index(magic) + place
        (flags,) = struct.unpack_from("<H", raw, at)
        assert flags & 0x800
        struct.pack_into("<H", raw, at, flags & ~0x800)
    assert [member.name for member in archives.members(io.BytesIO(raw))] == ["猫/é.jpg"]


def test_links_and_encrypted_members_have_a_fault():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("plain.jpg", b"?")
    assert [m.fault for m in archives.members(file)] == ["a link or a device", None]
    raw = bytearray(zip_of("secret.jpg").getvalue())
    struct.pack_into("<H", raw, raw.index(b"PK\1\2") + 8, 0x1)
    assert [m.fault for m in archives.members(io.BytesIO(raw))] == ["encrypted"]


def test_links_in_a_tar_have_a_fault(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("link.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
        archive.addfile(tarfile.TarInfo("plain.jpg"))
    found = {member.name: member.fault for member in archives.members(tmp_path / "a.tar")}
    assert found == {"link.jpg": "a link or a device", "plain.jpg": None}


@pytest.mark.parametrize(
    ("name", "leaves"),
    [("a/b.jpg", False), ("a..b/c.jpg", False), ("../b", True), ("a/../../b", True), ("/b", True), ("C:\\b", True),
     ("C:b", True), ("a\\..\\..\\b", True), ("\\\\host\\share\\b", True)],
)  # fmt: skip
def test_names_that_leave_the_folder(name, leaves):
    assert archives.leaves_folder(name) is leaves


def test_entries_are_counted_from_the_end_of_the_file():
    assert archives.zip_entries(zip_of("a", "b", "c")) == 3
    with pytest.raises(zipfile.BadZipFile):
        archives.zip_entries(io.BytesIO(b"no zip"))


def test_a_count_that_lies_is_seen_through_by_the_size_of_the_list():
    raw = bytearray(zip_of(*(f"{number:0100}" for number in range(100))).getvalue())
    end = raw.rindex(b"PK\5\6")
    struct.pack_into("<HH", raw, end + 8, 1, 1)
    assert archives.zip_entries(io.BytesIO(raw)) == 100 * 146 // 100


def test_a_name_that_claims_to_be_utf8_and_is_not_is_damage():
    raw = zip_of("猫.jpg").getvalue().replace("猫".encode(), b"\xff\xfe\xfd")
    with pytest.raises(zipfile.BadZipFile):
        list(archives.members(io.BytesIO(raw)))


def test_a_list_that_is_not_where_the_end_says_is_damage(tmp_path):
    raw = bytearray(zip_of("a.txt").getvalue())
    place = raw.rindex(b"PK\5\6") + 16
    struct.pack_into("<I", raw, place, struct.unpack_from("<I", raw, place)[0] + 40)
    with pytest.raises(zipfile.BadZipFile):
        for member in archives.members(io.BytesIO(raw)):
            archives.write(member, tmp_path / member.name)


def test_what_is_there_is_not_written_over(tmp_path):
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        archives.write(archives.Member("a.txt", 1, None, lambda: io.BytesIO(b"x")), tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "mine"
