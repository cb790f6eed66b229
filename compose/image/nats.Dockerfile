# A NATS server of the version that Quorate is tested with, for machines that reach no image registry; see Dockerfile.
#
#   CGO_ENABLED=0 go build -o compose/image/ github.com/nats-io/nats-server/v2
#   docker build -t nats:local -f compose/image/nats.Dockerfile compose/image
FROM scratch
COPY nats-server /usr/local/bin/
COPY --chown=65532:65532 owned /data
USER 65532:65532
ENTRYPOINT ["nats-server"]
