"""The shapes written in the annotations of isotrain.isolation are checked while these tests run."""

from jaxtyping import install_import_hook

install_import_hook("isotrain.isolation", "beartype.beartype")
