# A small image of connect-kv. Where no plyvel wheel fits the platform, the build stage compiles it.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
RUN python -m pip download --no-deps --only-binary plyvel --dest /tmp/wheels 'plyvel>=1.5.1,<2' \
 || (apt-get update && apt-get install -y --no-install-recommends libleveldb-dev g++ python3-dev)
COPY pyproject.toml README.md LICENSE /src/
COPY connect_kv /src/connect_kv
RUN python -m venv /opt/connect-kv && /opt/connect-kv/bin/pip install --no-cache-dir --disable-pip-version-check /src

FROM ${BASE}
# Needed only where plyvel was compiled; its wheels bring their own LevelDB.
RUN if ! ls /usr/lib/*/libleveldb* >/dev/null 2>&1 && [ "$(uname -m)" != x86_64 ]; then \
      apt-get update && apt-get install -y --no-install-recommends libleveldb1d && rm -rf /var/lib/apt/lists/*; fi \
 && useradd --system --uid 10001 --home-dir /data connect-kv \
 && mkdir /data && chown connect-kv /data
COPY --from=build /opt/connect-kv /opt/connect-kv
ENV PATH=/opt/connect-kv/bin:$PATH \
    CONNECT_KV_DATA_DIR=/data/node \
    CONNECT_KV_LISTEN_CLIENT=0.0.0.0:2379 \
    CONNECT_KV_LISTEN_PEER=0.0.0.0:2380 \
    CONNECT_KV_LISTEN_HTTP=0.0.0.0:2381
USER connect-kv
VOLUME /data
EXPOSE 2379 2380 2381
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:2381/health', timeout=2)"]
ENTRYPOINT ["connect-kv"]
CMD ["serve"]
