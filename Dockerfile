# A small image of connect-kv, without pip, run by a user of its own.
#   docker build -t connect-kv:latest .          (behind a proxy or with an index of your own: scripts/check-containers shows how)
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
# Only for this stage, and only where the machine that builds has them set.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
# Compiled modules then bear a hash of their source instead of a date: two builds hold the same bytes.
ARG SOURCE_DATE_EPOCH=0
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH}
RUN python -m venv --without-pip /opt/connect-kv
COPY pyproject.toml packaging/container/constraints.txt /src/
# What we depend on comes first: it stays cached while only our own code changes.
RUN python -c "import tomllib; one = tomllib.load(open('/src/pyproject.toml', 'rb'))['project']; print(*one['dependencies'], *one['optional-dependencies']['leveldb'], sep='\n')" >/src/dependencies.txt \
 && install="python -m pip --python /opt/connect-kv/bin/python install --quiet --constraint /src/constraints.txt" \
 && if ! $install --only-binary plyvel,plyvel-next --requirement /src/dependencies.txt; then \
      # No wheel of plyvel fits this platform: compile it against Debian's LevelDB.
      apt-get update -qq \
      && apt-get install -y -qq --no-install-recommends libleveldb-dev g++ python3-dev \
      && $install --requirement /src/dependencies.txt \
      && touch /opt/connect-kv/needs-libleveldb; \
    fi
COPY README.md LICENSE /src/
COPY connect_kv /src/connect_kv
RUN python -m pip --python /opt/connect-kv/bin/python install --quiet --no-deps /src

FROM ${BASE}
COPY --from=build /opt/connect-kv /opt/connect-kv
RUN if [ -e /opt/connect-kv/needs-libleveldb ]; then \
      apt-get update -qq && apt-get install -y -qq --no-install-recommends libleveldb1d && rm -rf /var/lib/apt/lists/*; \
    fi \
 && groupadd --gid 10001 connect-kv \
 && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin connect-kv \
 && install -d -o 10001 -g 10001 -m 700 /data
# Where an etcd is started by its name, this is: with its own flags and environment.
RUN printf '#!/bin/sh\nexec /opt/connect-kv/bin/connect-kv etcd "$@"\n' >/usr/local/bin/etcd && chmod 755 /usr/local/bin/etcd
ENV PATH=/opt/connect-kv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CONNECT_KV_DATA_DIR=/data/node \
    CONNECT_KV_LISTEN_CLIENT=0.0.0.0:2379 \
    CONNECT_KV_LISTEN_PEER=0.0.0.0:2380 \
    CONNECT_KV_LISTEN_HTTP=0.0.0.0:2381
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 2379 2380 2381
STOPSIGNAL SIGTERM
# Healthy: there is a leader and this member answers a linearizable read.
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 \
  CMD ["python", "-I", "-S", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 2381, timeout=2); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["connect-kv"]
CMD ["serve"]
