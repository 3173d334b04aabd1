# The gateway and the simulator in one image. Build: docker build -t mqtt-browser-gateway .

# The dashboard: as `make web` has built it here, if its sources are still the same, else built now. Where npm can't be
# reached the gateway serves its small page instead.
FROM python:3.13-slim AS web
WORKDIR /src
COPY web web
COPY scripts/build_web.py scripts/
# a pattern may match nothing, but one source must be there
COPY LICENSE gateway/stati[c] gateway/static/
COPY LICENSE buil[d]/web.built-from build/
RUN rm gateway/static/LICENSE && python scripts/build_web.py --optional

FROM python:3.13-slim AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /venv
# the pinned requirements first: they change less often than the code
COPY pyproject.toml requirements-dev.txt README.md LICENSE ./
COPY gateway/__init__.py gateway/
RUN mkdir sensors_sim firmware && /venv/bin/pip install --quiet --constraint requirements-dev.txt '.[cluster,decoders]' \
    && /venv/bin/pip uninstall --quiet --yes mqtt-browser-gateway
COPY gateway gateway
COPY --from=web /src/gateway/static gateway/static
COPY sensors_sim sensors_sim
# boards are flashed from the machine that they are plugged into
RUN /venv/bin/pip install --quiet --no-deps . && rm /venv/bin/sensors-flash \
    && /venv/bin/pip uninstall --quiet --yes pip

FROM python:3.13-slim
# a fixed number, so that files of a volume or a secret can be given to it
RUN groupadd --gid 10001 gateway && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin gateway
COPY --from=build /venv /venv
# history lives in a volume, and survives the container
RUN install -d -o 10001 -g 10001 /var/lib/gateway
VOLUME /var/lib/gateway
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 GATEWAY_HOST=0.0.0.0 GATEWAY_ARCHIVE_FILE=/var/lib/gateway/archive.db
WORKDIR /etc/gateway
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 CMD ["python", "-m", "gateway.ops.healthcheck"]
CMD ["gateway", "serve"]
