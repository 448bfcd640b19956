# avsb in a container, for CPU and CUDA: the registry's torch wheels contain both.
#
#   docker build -t avsb .
#   docker run --rm -v "$PWD:/data" avsb demo
#   docker run --rm --gpus all --shm-size 8g -v "$PWD:/data" avsb run --method combo --backbone pvt --data AVSBench
FROM python:3.12-slim

WORKDIR /opt/avsbench-harness
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY avsbench_harness avsbench_harness
COPY methods methods
RUN pip install --no-cache-dir -c constraints.txt ".[demo]"

# Results and the cache belong to the mounted folder.
WORKDIR /data
ENV AVSB_CACHE_DIR=/data/.avsb-cache
ENTRYPOINT ["avsb"]
CMD ["--help"]
