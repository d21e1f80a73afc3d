# synth-pipeline with flows/, prefect.yaml and everything that a server, a worker and a Dask cluster of it need.
#
#   docker build -t synth-pipeline .                              networks on the CPU
#   docker build -t synth-pipeline --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .        CUDA
#   docker run --rm -v "$PWD/runs:/work/runs" synth-pipeline run smoke
#
# No system packages: the wheels bring their libraries, and nothing is rendered.

FROM python:3.11.13-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/synth-pipeline/bin:$PATH
WORKDIR /source
RUN python -m venv /opt/synth-pipeline
# What changes seldom comes first: torch, the other dependencies as the lock has them, last our own wheel.
COPY requirements.lock ./
RUN pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.lock)"
COPY pyproject.toml ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    print(*p['dependencies'], *p['optional-dependencies']['s3'], sep='\n')" > needed.txt \
    && pip install --constraint requirements.lock --requirement needed.txt
COPY MANIFEST.in README.md LICENSE ./
COPY synth_pipeline/ synth_pipeline/
COPY datasets/ datasets/
COPY validation/ validation/
RUN pip wheel --no-deps --wheel-dir /wheels . && pip install --no-deps /wheels/*.whl && pip check

FROM python:3.11.13-slim-bookworm
RUN useradd --create-home --uid 1000 synth \
    && install -d -o synth -g synth /work /work/runs /data /home/synth/.prefect
COPY --from=build /opt/synth-pipeline /opt/synth-pipeline
ENV PATH=/opt/synth-pipeline/bin:$PATH PYTHONUNBUFFERED=1 MUJOCO_GL=disabled \
    SYNTHPIPE_DATA=/data/collected MINARI_DATASETS_PATH=/data/minari \
    DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false GX_ANALYTICS_ENABLED=false
WORKDIR /work
COPY flows/ flows/
COPY prefect.yaml ./
USER 1000
VOLUME ["/work/runs", "/data"]
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s --retries=3 CMD ["synthpipe", "doctor"]
ENTRYPOINT ["synthpipe"]
CMD ["--help"]
