# The app in a container, as a user without rights. Build and run:
#
#   docker build -t alexnet-lab .
#   docker run --init -p 127.0.0.1:8501:8501 -v alexnet-lab:/home/lab/work alexnet-lab        # then http://localhost:8501
#
# As it stands it uses an NVIDIA GPU with `docker run --gpus all`, and otherwise the CPU. For an image without CUDA, several
# GB smaller, build with --build-arg TORCH_INDEX=URL, the index of CPU builds that pytorch.org's installation page gives.
FROM python:3.11-slim

ARG TORCH_INDEX=""

# g++ is what torch.compile builds the training step for a CPU with.
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r requirements.txt

COPY . .

# The program belongs to root, so that nothing that runs in here can change it; runs and photos go to a volume.
RUN useradd --create-home --uid 1000 lab && install -d -o lab -g lab /home/lab/work
USER lab
ENV ALEXNET_HOME=/home/lab/work \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
VOLUME /home/lab/work

EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]

# Within the container it listens at every address; server.allowedHosts still lets only localhost in.
CMD ["streamlit", "run", "app.py", "--server.address=0.0.0.0", "--server.headless=true"]
