"""HTTP headers in which the servers around an archive pass on what TorchServe itself drops."""

# The URL's query, which TorchServe 0.12.0 drops except for /invocations: the proxy and Flask pass it on.
QUERY = "x-query"
# The protocol of the URL: V2 or another. TorchServe without a proxy does not send it.
PROTOCOL, V2 = "x-protocol", "v2"
# A health check sends the same golden image every second. It is counted separately: otherwise that image's
# label would be the most frequent of a quiet night.
HEALTH_CHECK = "x-health-check"
