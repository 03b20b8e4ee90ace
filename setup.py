"Hands settings.ini, which describes the package, to setuptools."

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

ini = ConfigParser(delimiters=["="])
ini.read(Path(__file__).with_name("settings.ini"), encoding="utf-8")
cfg = ini["DEFAULT"]
folders = "data", "data/gpu", "data/results"
published = sorted(f.as_posix() for f in Path("data/published").glob("*/"))
data = {
    f"mmcourse.{f}".replace("/", "."): f
    for f in (*folders, *published)
    if Path(f).is_dir()
}


def requires(name):
    return cfg.get(name, "").split()


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="Apache-2.0",
    url=cfg["git_url"],
    keywords=cfg["keywords"].split(),
    python_requires=f">={cfg['min_python']}",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=[*find_packages(include=["mmcourse", "mmcourse.*"]), *data],
    package_dir=data,  # the wheel carries data/ as mmcourse/data
    package_data={
        name: [
            f"*.{s}" for s in ("npz", "json", "safetensors", "md", "yml", "xz", "csv")
        ]
        for name in data
    },
    include_package_data=False,
    zip_safe=False,
    install_requires=requires("requirements"),
    extras_require={
        "site": requires("site_requirements"),
        "lab": requires("lab_requirements"),
        "parity": requires("parity_requirements"),
        "real": requires("real_requirements"),
        "trust": requires("trust_requirements"),
        "demo": requires("demo_requirements"),
        "dev": [
            *requires("dev_requirements"),
            *requires("site_requirements"),
            *requires("parity_requirements"),
            *requires("trust_requirements"),
            *requires("demo_requirements"),
        ],
    },
)
