"""Debian's packages are named as advisories name them."""

from marctl.audit.system import debian_packages


def test_packages_of_dpkg_have_package_urls():
    """Signs of a version are escaped, and a source package of another name or version is stated."""
    listed = (
        "libssl3\t3.0.17-1~deb12u2\tamd64\topenssl\t3.0.17-1~deb12u2\n"
        "bsdutils\t1:2.38.1-5\tamd64\tutil-linux\t2.38.1-5\n"
        "bash\t5.2.15-2+b2\tamd64\tbash\t5.2.15-2\n"
        "login\t1:4.13+dfsg1-1\tall\tlogin\t1:4.13+dfsg1-1\n"
    )
    ssl, bsdutils, bash, login = debian_packages(listed, "debian", "12")
    assert (
        ssl["purl"]
        == ssl["bom-ref"]
        == (
            "pkg:deb/debian/libssl3@3.0.17-1~deb12u2"
            "?arch=amd64&distro=debian-12&upstream=openssl%403.0.17-1~deb12u2"
        )
    )
    assert (ssl["type"], ssl["name"], ssl["version"]) == ("library", "libssl3", "3.0.17-1~deb12u2")
    assert bsdutils["purl"].endswith(
        "bsdutils@1%3A2.38.1-5?arch=amd64&distro=debian-12&upstream=util-linux%402.38.1-5"
    )
    assert bash["purl"].endswith("bash@5.2.15-2%2Bb2?arch=amd64&distro=debian-12&upstream=bash%405.2.15-2")
    assert login["purl"] == "pkg:deb/debian/login@1%3A4.13%2Bdfsg1-1?arch=all&distro=debian-12"


def test_other_distributions_packages_are_their_own():
    """The base image may be another's."""
    [one] = debian_packages("bash\t5.2.21-2ubuntu4\tamd64\tbash\t5.2.21-2ubuntu4\n", "ubuntu", "24.04")
    assert one["purl"] == "pkg:deb/ubuntu/bash@5.2.21-2ubuntu4?arch=amd64&distro=ubuntu-24.04"


def test_no_package_is_no_component():
    """An empty answer of dpkg-query lists nothing."""
    assert list(debian_packages("", "debian", "12")) == []
