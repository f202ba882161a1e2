# An image of numgen and what it links to, and nothing else: no shell, no package manager, 30 MB.
#
#   docker build -t numgen:0.1.0 .
#   docker run --rm -p 8080:8080 -v numgen:/var/lib/numgen numgen:0.1.0

FROM rust:1.95-bookworm AS build
# The image has that toolchain; without this, rustup would fetch the lints that rust-toolchain.toml asks for as well.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /build
COPY . .
# Downloads and compiled crates outlive a change of the sources; the binary has to leave the cache to be in the layer.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin numgen && cp target/release/numgen /usr/local/bin/numgen
# The root of the final image: the binary, the libraries that it asks for, the certificates that vouch for https, a user, and the
# directory for what must survive, which a fresh volume copies with its owner.
RUN mkdir -p /image/usr/local/bin /image/etc/ssl/certs /image/var/lib/numgen /image/tmp && chmod 1777 /image/tmp \
    && cp /usr/local/bin/numgen /image/usr/local/bin/ \
    && ldd /usr/local/bin/numgen | grep -o '/[^ ]*' | xargs cp --parents --dereference --target-directory=/image \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && echo 'numgen:x:65532:65532::/var/lib/numgen:/' >/image/etc/passwd \
    && echo 'numgen:x:65532:' >/image/etc/group \
    && echo 'hosts: files dns' >/image/etc/nsswitch.conf \
    && chown -R 65532:65532 /image/var/lib/numgen

FROM scratch
COPY --from=build /image /
LABEL org.opencontainers.image.title=numgen \
      org.opencontainers.image.description="Issues unique numbers over HTTP" \
      org.opencontainers.image.licenses=Apache-2.0
# Kubernetes accepts `runAsNonRoot` only for a number.
USER 65532:65532
WORKDIR /var/lib/numgen
ENV PATH=/usr/local/bin \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    NUMGEN_LISTEN=0.0.0.0:8080 \
    NUMGEN_ADMIN_LISTEN=0.0.0.0:9464 \
    NUMGEN_DATA_DIR=/var/lib/numgen/data \
    NUMGEN_LOG_FORMAT=json
VOLUME /var/lib/numgen
EXPOSE 8080 9464
# An empty store settles for 5 s before a node is ready.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 CMD ["numgen", "health"]
# SIGTERM drains; it takes at most NUMGEN_SHUTDOWN_GRACE (10 s) and what the stores take.
STOPSIGNAL SIGTERM
ENTRYPOINT ["numgen"]
CMD ["serve"]
