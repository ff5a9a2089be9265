"""Debian's packages are named as advisories name them."""

from marctl.audit.system import debian_packages


def test_packages_of_dpkg_have_package_urls():
    """Signs of a version are escaped, and a source package of another name is stated."""
    listed = "libssl3\t3.0.17-1~deb12u2\tamd64\topenssl\nlogin\t1:4.13+dfsg1-1\tall\tlogin\n"
    ssl, login = debian_packages(listed, "debian-12")
    assert ssl == {
        "type": "library",
        "bom-ref": (
            purl := "pkg:deb/debian/libssl3@3.0.17-1~deb12u2?arch=amd64&distro=debian-12&upstream=openssl"
        ),
        "name": "libssl3",
        "version": "3.0.17-1~deb12u2",
        "purl": purl,
    }
    assert login["purl"] == "pkg:deb/debian/login@1%3A4.13%2Bdfsg1-1?arch=all&distro=debian-12"


def test_no_package_is_no_component():
    """An empty answer of dpkg-query lists nothing."""
    assert list(debian_packages("", "debian-12")) == []
