# The gateway and the simulator in one image. Build: docker build -t mqtt-browser-gateway .
#
# Everything is made on the machine that builds, for the machine that will run it: nothing is emulated. The last stage
# only copies, so `docker buildx build --platform linux/amd64,linux/arm64 .` needs no emulator either.
#
# What it stands on can be named with its digest, as `make release` does where a registry gives one:
#   docker build --build-arg BASE=python:3.13-slim@sha256:… .
# BUILD_BASE is the same for the machine that builds; both have the same Python in the same place.
ARG BASE=python:3.13-slim
ARG BUILD_BASE=${BASE}

# The dashboard: as `make web` has built it here, if its sources are still the same, else built now. Where npm can't be
# reached the gateway serves its small page instead.
FROM --platform=$BUILDPLATFORM ${BUILD_BASE} AS web
WORKDIR /src
COPY web web
COPY scripts/build_web.py scripts/
# a pattern may match nothing, but its folder and one source must be there
COPY gateway/__init__.py gateway/stati[c] gateway/static/
COPY LICENSE buil[d]/web.built-from build/
# why it could not be built is kept, and the gateway's log says it
RUN rm gateway/static/__init__.py && python scripts/build_web.py --optional

FROM --platform=$BUILDPLATFORM ${BUILD_BASE} AS build
# no value here: it would count more than that of the build
ARG TARGETARCH
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# `strip` for both machines takes a quarter off what packages bring; without it the image is larger, nothing else
RUN (apt-get update && apt-get install --yes --no-install-recommends binutils-x86-64-linux-gnu binutils-aarch64-linux-gnu) \
    >/dev/null 2>&1 || echo "no strip here: the image gets larger"
COPY pyproject.toml requirements-dev.txt ./
COPY scripts/environments.py scripts/
# what the gateway needs first: it changes less often than the code
RUN python scripts/environments.py /rootfs/venv --at /venv --arch "${TARGETARCH:-amd64}" --extras cluster,decoders
COPY scripts/build_hook.py scripts/build_web.py scripts/
COPY README.md LICENSE ./
COPY gateway gateway
COPY --from=web /src/gateway/static gateway/static
COPY sensors_sim sensors_sim
# boards are flashed from the machine that they are plugged into
RUN mkdir firmware && touch firmware/__init__.py \
    && pip wheel --quiet --no-deps --wheel-dir /wheel . \
    && python scripts/environments.py /rootfs/venv --at /venv --arch "${TARGETARCH:-amd64}" --has-needs --wheel /wheel/*.whl \
        --without sensors-flash
# a fixed number, so that files of a volume or a secret can be given to it; history lives in a volume
RUN mkdir -p /rootfs/etc/gateway /rootfs/var/lib \
    && cp /etc/passwd /etc/group /rootfs/etc/ \
    && echo "gateway:x:10001:10001::/var/lib/gateway:/usr/sbin/nologin" >> /rootfs/etc/passwd \
    && echo "gateway:x:10001:" >> /rootfs/etc/group \
    && install -d -o 10001 -g 10001 /rootfs/var/lib/gateway

# what the image adds to its base, for whoever looks at it without running it
FROM scratch AS files
COPY --from=build /rootfs/ /

FROM ${BASE}
LABEL org.opencontainers.image.title="MQTT to browser gateway" \
      org.opencontainers.image.description="Relays MQTT messages to browsers: subscribe with three lines of JavaScript" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /rootfs/ /
VOLUME /var/lib/gateway
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 GATEWAY_HOST=0.0.0.0 \
    GATEWAY_ARCHIVE_FILE=/var/lib/gateway/archive.db
WORKDIR /etc/gateway
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 CMD ["python", "-m", "gateway.ops.healthcheck"]
CMD ["gateway", "serve"]
