# docker build -t recbole_ser . && docker run --rm -v "$PWD/saved:/work/saved" recbole_ser
# On a machine without a GPU, name PyTorch's CPU index to save 3.6 GB: --build-arg TORCH_INDEX=<its address>
FROM python:3.11-slim
ARG TORCH_INDEX=
WORKDIR /package
RUN test -z "$TORCH_INDEX" || pip install --no-cache-dir --index-url "$TORCH_INDEX" torch==2.13.0
COPY . .
RUN pip install --no-cache-dir . && pip install --no-cache-dir --no-deps recbole==1.2.1
WORKDIR /work
ENTRYPOINT ["recbole-ser"]
CMD ["run", "--model=SESRec", "--dataset=ser-sample"]
