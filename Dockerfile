# One image for every process of the mesh; the command says which one a container is.
#
#   docker build -t kente .
#   docker run kente python -m services.payments

FROM python:3.12-slim AS build
WORKDIR /build
RUN python -m venv /opt/kente
COPY requirements.lock .
RUN /opt/kente/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary=:all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY mesh mesh
COPY services services
COPY gateway gateway
COPY kente_verify.py ./
COPY gen/python gen/python
RUN /opt/kente/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation .

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/kente --create-home kente
COPY --from=build /opt/kente /opt/kente
ENV PATH=/opt/kente/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    KENTE_HOST=0.0.0.0 \
    KENTE_STATE_DIR=/var/lib/kente
USER kente
WORKDIR /var/lib/kente
CMD ["kente", "--help"]
