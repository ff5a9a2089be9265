"""The libraries in TorchServe's jar are known by name and version."""

from importlib.metadata import distribution
from pathlib import Path

from marctl.audit.jar import SHA256, digest, libraries

JAR = Path(str(distribution("torchserve").locate_file("ts/frontend/model-server.jar")))


def test_jar_is_the_one_whose_libraries_are_known():
    """Versions come from the jar itself and from TorchServe's build files."""
    assert digest(JAR) == SHA256
    found = {f"{one.group}:{one.name}": one.version for one in libraries(JAR)}
    assert found["io.netty:netty-codec-http"] == "4.1.53.Final"
    assert found["io.grpc:grpc-core"] == "1.50.0"
    assert found["org.codehaus.groovy:groovy"] == "3.0.9"
    assert found["org.yaml:snakeyaml"] == "2.1"
    assert found["org.testng:testng"] is None


def test_versions_are_not_told_of_another_jar(tmp_path):
    """One byte more makes it another jar: only the versions that it states itself are known."""
    other = tmp_path / "other.jar"
    other.write_bytes(JAR.read_bytes() + b"x")
    found = {one.name: one.version for one in libraries(other)}
    assert found["netty-codec-http"] == "4.1.53.Final"
    assert found["snakeyaml"] is None
