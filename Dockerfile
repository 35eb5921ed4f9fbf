# One file, two images: `server` (with torch) and `client` (without). To build on the very same base
# again, pin it: --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# The first process of a container: it passes signals on from its first moment, as Python cannot.
ARG INIT=dumb-init==1.2.5.post1

FROM ${PYTHON_IMAGE} AS sources
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY proto/charlm proto/charlm
COPY client/charlm_client client/charlm_client
COPY model/charlm_model model/charlm_model
COPY server/charlm_server server/charlm_server
COPY training/charlm_training training/charlm_training

FROM sources AS server-build
ARG INIT
RUN python3 -m venv /opt/charlm \
    && /opt/charlm/bin/pip install --no-cache-dir --disable-pip-version-check ".[server,training]" "$INIT" \
    && CHARLM_KERNELS_DIR=/opt/charlm/kernels /opt/charlm/bin/python -m charlm_model.compile_kernels

FROM sources AS client-build
ARG INIT
RUN python3 -m venv /opt/charlm \
    && /opt/charlm/bin/pip install --no-cache-dir --disable-pip-version-check . "$INIT"

FROM ${PYTHON_IMAGE} AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin charlm
ENV PATH=/opt/charlm/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
ENTRYPOINT ["dumb-init", "charlm"]

FROM runtime AS client
COPY --from=client-build /opt/charlm /opt/charlm
CMD ["--help"]

FROM runtime AS server
COPY --from=server-build /opt/charlm /opt/charlm
ENV CHARLM_KERNELS_DIR=/opt/charlm/kernels \
    CHARLM_HOST=0.0.0.0 \
    CHARLM_PORT=50051
EXPOSE 50051
# The standard health service is asked over the wire: a process that runs but cannot serve is unhealthy.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
    CMD ["charlm", "health", "--server", "127.0.0.1:50051"]
CMD ["serve", "/models"]
