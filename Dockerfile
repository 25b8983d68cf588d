# The images of all services, one target each: search (API, worker, migrations), sandbox, policy, prm, trainer.
# docker-compose.yml builds them. Those with models share the layers of the target `models`.
#
# PYTHON_IMAGE may carry a digest. TORCH_INDEX is the package index of PyTorch's CPU builds; with ACCELERATOR=gpu hand
# over an empty one: PyPI's torch is the CUDA build. All other versions are pinned by deploy/constraints.txt.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/ratchet/bin:$PATH \
    PYTHONPATH=/opt/code:/opt/code/ratchet/bundled \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    HOME=/var/lib/ratchet/cache \
    HF_HOME=/var/lib/ratchet/cache/huggingface \
    RATCHET_CACHE_DIR=/var/lib/ratchet/cache \
    RATCHET_ROUNDS_DIR=/var/lib/ratchet/rounds \
    RATCHET_HOST=0.0.0.0 \
    RATCHET_PORT=8000
# A named volume takes over the owner of the folder that it covers.
RUN groupadd --gid 10001 ratchet && useradd --uid 10001 --gid 10001 --no-create-home --home-dir $HOME ratchet \
    && mkdir -p /var/lib/ratchet/cache /var/lib/ratchet/rounds /run/sandbox /run/ratchet-secrets /run/ratchet-tokens \
    && chown -R ratchet:ratchet /var/lib/ratchet /run/sandbox /run/ratchet-secrets /run/ratchet-tokens
HEALTHCHECK --interval=5s --timeout=6s --start-period=20m --retries=6 CMD ["python", "-m", "ratchet.web.healthcheck"]

# Our own code, in a layer of its own and the same in every image.
FROM base AS code
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY ratchet ratchet
COPY services services
COPY models models
RUN python -m venv /tmp/build && /tmp/build/bin/pip install --no-deps --target /opt/code . && rm -rf /tmp/build

# What pip has to know to install the dependencies, but none of the code: a change there installs nothing again.
FROM base AS skeleton
ENV PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
COPY pyproject.toml deploy/constraints.txt ./
COPY scripts scripts
RUN mkdir -p ratchet services models/nano/policy && touch README.md LICENSE

FROM skeleton AS store
RUN scripts/install /opt/ratchet store && pip uninstall --yes ratchet-solver

FROM store AS search
COPY --from=code /opt/code /opt/code
USER ratchet
WORKDIR /
CMD ["python", "-m", "services.search"]

FROM skeleton AS sandbox
RUN scripts/install /opt/ratchet sandbox && pip uninstall --yes ratchet-solver
COPY --from=code /opt/code /opt/code
USER ratchet
WORKDIR /
CMD ["python", "-m", "services.sandbox"]

FROM skeleton AS models
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN scripts/install /opt/ratchet models && pip uninstall --yes ratchet-solver

FROM models AS prm
COPY --from=code /opt/code /opt/code
USER ratchet
WORKDIR /
CMD ["python", "-m", "services.prm"]

FROM models AS policy
# cpu or gpu: vLLM's build.
ARG ACCELERATOR=cpu
# vLLM's CPU build loads libnuma; on CUDA vLLM compiles kernels when it starts.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 $(if [ "$ACCELERATOR" = gpu ]; then echo gcc libc6-dev; fi) \
    && rm -rf /var/lib/apt/lists/*
RUN scripts/install /opt/ratchet "$ACCELERATOR" && pip uninstall --yes ratchet-solver
COPY --from=code /opt/code /opt/code
USER ratchet
WORKDIR /
CMD ["python", "-m", "services.policy"]

# A dependency of reasoning-gym that comes as source only.
FROM skeleton AS compiled
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev \
    && python -m venv /tmp/build && /tmp/build/bin/pip install setuptools wheel \
    && /tmp/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels pycosat

FROM models AS trainer
COPY --from=compiled /wheels /wheels
RUN PIP_FIND_LINKS=/wheels scripts/install /opt/ratchet rounds cli && pip uninstall --yes ratchet-solver
COPY --from=code /opt/code /opt/code
USER ratchet
WORKDIR /
CMD ["python", "-m", "services.trainer"]
