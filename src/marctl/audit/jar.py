"""The Java libraries in TorchServe's jar.

It is one jar merged from many, without the pom.properties that would identify them. The versions of Netty,
Groovy and gRPC can be read from the jar itself. The others come from the build files of TorchServe 0.12.0
(gradle.properties, server/build.gradle and archive/build.gradle in its folder frontend) and hold only for the
jar with the digest below.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SHA256 = "ce340411ce54beaacd3dcfa31644a9aa369a83a36ed687172ba1088a13123dfe"
NETTY = "META-INF/io.netty.versions.properties"
GROOVY = "META-INF/groovy-release-info.properties"
GRPC = "io/grpc/internal/GrpcUtil.class"
SHADED = "io/grpc/netty/shaded/io/netty/buffer/ByteBuf.class"
BUILD_FILES = "TorchServe 0.12.0's build files"
UNKNOWN = "not known: a class of it is in the jar"
# Library, its version if the build files have one, and a class that shows that it is in the jar.
NAMED = (
    ("com.google.code.gson:gson", "2.9.0", "com/google/gson/Gson"),
    ("com.google.guava:guava", None, "com/google/common/base/Strings"),
    ("com.google.protobuf:protobuf-java", None, "com/google/protobuf/Message"),
    ("com.lmax:disruptor", "3.4.4", "com/lmax/disruptor/RingBuffer"),
    ("commons-cli:commons-cli", "1.3.1", "org/apache/commons/cli/Options"),
    ("commons-io:commons-io", "2.16.1", "org/apache/commons/io/IOUtils"),
    ("info.picocli:picocli", None, "picocli/CommandLine"),
    ("io.perfmark:perfmark-api", None, "io/perfmark/PerfMark"),
    ("io.prometheus:simpleclient", "0.9.0", "io/prometheus/client/Counter"),
    ("io.prometheus:simpleclient_servlet", "0.9.0", "io/prometheus/client/exporter/MetricsServlet"),
    ("org.apache.commons:commons-compress", "1.25.0", "org/apache/commons/compress/MemoryLimitException"),
    ("org.apache.logging.log4j:log4j-api", "2.17.1", "org/apache/logging/log4j/Logger"),
    ("org.apache.logging.log4j:log4j-core", "2.17.1", "org/apache/logging/log4j/core/Logger"),
    ("org.apache.logging.log4j:log4j-slf4j-impl", "2.17.1", "org/apache/logging/slf4j/Log4jLogger"),
    ("org.pytorch:torchserve-plugins-sdk", "0.0.5", "org/pytorch/serve/servingsdk/Model"),
    ("org.slf4j:slf4j-api", "1.7.32", "org/slf4j/Logger"),
    ("org.testng:testng", None, "org/testng/TestNG"),
    ("org.yaml:snakeyaml", "2.1", "org/yaml/snakeyaml/Yaml"),
)


class Library(NamedTuple):
    """A library in the jar: Maven group and name, version if known, and the source of the version."""

    group: str
    name: str
    version: str | None
    source: str

    @property
    def purl(self) -> str:
        """Its package URL."""
        return f"pkg:maven/{self.group}/{self.name}" + (f"@{self.version}" if self.version else "")


def digest(jar: Path) -> str:
    """Return the jar's SHA-256."""
    return hashlib.sha256(jar.read_bytes()).hexdigest()


def libraries(jar: Path) -> list[Library]:
    """Return the libraries found in the jar, sorted by name."""
    is_known = digest(jar) == SHA256
    with zipfile.ZipFile(jar) as opened:
        return sorted([*_versioned(opened), *_named(opened, is_known=is_known)])


def _versioned(jar: zipfile.ZipFile) -> Iterator[Library]:
    """Yield the libraries whose version is in the jar itself."""
    names = set(jar.namelist())
    if NETTY in names:
        told = dict(re.findall(r"^([\w-]+)\.version=(\S+)", jar.read(NETTY).decode(), re.MULTILINE))
        for name, version in told.items():
            yield Library("io.netty", name, version, f"{NETTY} in the jar")
    if GROOVY in names:
        [version] = re.findall(r"^ImplementationVersion=(\S+)", jar.read(GROOVY).decode(), re.MULTILINE)
        yield Library("org.codehaus.groovy", "groovy", version, f"{GROOVY} in the jar")
    if GRPC in names:
        # A constant in the class file: its length in two bytes, then its text.
        found = re.search(rb"\x01\x00[\x05-\x08](\d+\.\d+\.\d+)", jar.read(GRPC))
        version = found[1].decode() if found else None
        yield Library("io.grpc", "grpc-core", version, f"{GRPC} in the jar")
        if SHADED in names:  # it includes its own copy of Netty
            yield Library("io.grpc", "grpc-netty-shaded", version, f"{GRPC} in the jar")


def _named(jar: zipfile.ZipFile, *, is_known: bool) -> Iterator[Library]:
    names = set(jar.namelist())
    for library, version, witness in NAMED:
        if f"{witness}.class" in names:
            group, _, name = library.partition(":")
            known = version if is_known else None
            yield Library(group, name, known, BUILD_FILES if known else UNKNOWN)
