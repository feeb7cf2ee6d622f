# The engine on a CPU, without a compiler and not as root. CUDA: docs/install.md.
#
#     docker build -t engine .
#     docker run --rm -v "$PWD/runs:/home/engine/runs" engine train convnet
FROM python:3.13-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++
COPY . /source
# Not in isolation, where kernels would be built for a newer jaxlib than the one below, which refuses them.
RUN pip install --constraint /source/constraints.txt hatchling jaxlib
RUN ENGINE_KERNELS=own pip wheel --no-build-isolation --no-deps --wheel-dir /wheels /source

FROM python:3.13-slim
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/
RUN pip install --no-cache-dir --constraint /wheels/constraints.txt /wheels/*.whl
RUN useradd --create-home engine && install --directory --owner engine /home/engine/runs
USER engine
WORKDIR /home/engine
ENTRYPOINT ["engine"]
CMD ["--help"]
