"""The HTTP headers by which the servers around an archive tell it what TorchServe itself drops."""

# The query of the address, which TorchServe 0.12.0 drops from all but /invocations: the reverse proxy and
# Flask hand it on.
QUERY = "x-query"
# Whose protocol the address is: V2's, or another. TorchServe without a proxy says nothing.
PROTOCOL, V2 = "x-protocol", "v2"
# A health check sends the same golden image every second. These are counted on their own: else that image's
# label would be the most frequent of a quiet night.
HEALTH_CHECK = "x-health-check"
