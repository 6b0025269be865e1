# A small model behind vLLM's command line, for tests without a GPU.
#   docker build -f hack/images/modelserver.Dockerfile -t localhost/tiny-vllm .
ARG PYTHON=python:3.11-slim
FROM ${PYTHON} AS build
WORKDIR /src
COPY pyproject.toml requirements.lock ./
COPY hack/images/dependencies.py hack/images/
RUN pip install --no-cache-dir --require-hashes --requirement requirements.lock \
 && python hack/images/dependencies.py --extras lab --site /opt/weir/site \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/weir/site
COPY README.md LICENSE ./
COPY router router
COPY operator operator
RUN python -m hatchling build -t wheel -d /tmp/wheel \
 && python -m zipfile -e /tmp/wheel/*.whl /opt/weir/code \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/weir/code

FROM ${PYTHON}
COPY --from=build /opt/weir /opt/weir
COPY --chmod=755 hack/images/vllm.py /usr/local/bin/vllm
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/weir/code:/opt/weir/site \
    PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["vllm", "serve"]
