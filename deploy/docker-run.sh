#!/bin/sh
# Run an image of this project and wait until it answers a golden image:
#   deploy/docker-run.sh IMAGE CONTAINER PORT [OPTION OF docker run...]
# `docker stop` waits until the requests in progress are answered. The ports are published on loopback only. Inside,
# only /tmp is writable, no process is root, and there are no capabilities.
set -eu
image=$1 container=$2 port=$3
shift 3

fail() {
    echo "error: $*" >&2
    exit 1
}

case $image in
*:flask)
    port=${port:-8890}
    set -- --publish "127.0.0.1:$port:8890" "$@"
    ;;
*)
    port=${port:-8080}
    set -- --publish "127.0.0.1:$port:8080" --publish "127.0.0.1:$((port + 1)):8081" "$@"
    ;;
esac
model=${image%:*}
case $image in
*:torch) build="make docker TARGET=torch" ;;
*) build="make docker" ;;
esac

docker image inspect "$image" >/dev/null 2>&1 || fail "there is no image $image; build it with: $build"
if docker container inspect "$container" >/dev/null 2>&1; then
    fail "there is already a container $container; remove it with: docker rm --force $container"
fi
docker run --detach --name "$container" --stop-timeout 30 --read-only --tmpfs /tmp --cap-drop ALL \
    --security-opt no-new-privileges "$@" "$image" >/dev/null

while [ "$(docker inspect --format '{{.State.Health.Status}}' "$container")" = starting ]; do
    [ "$(docker inspect --format '{{.State.Running}}' "$container")" = true ] || break
    sleep 0.5
done
if [ "$(docker inspect --format '{{.State.Running}} {{.State.Health.Status}}' "$container")" != "true healthy" ]; then
    docker logs --tail 20 "$container" >&2
    docker rm --force "$container" >/dev/null
    fail "$image does not answer; the end of its log is above"
fi
echo "$image answers on http://127.0.0.1:$port as container $container"
echo "  try   curl http://127.0.0.1:$port/predictions/$model -T tests/images/2.png"
echo "  logs  docker logs --follow $container"
echo "  stop  docker stop $container && docker rm $container"
