//! Reports, before anything is built, which package to install if a feature needs a library that the system does not
//! have.

use std::env;
use std::process::Command;

/// Features, the libraries that they need, and their Debian packages.
const LIBRARIES: [(&str, &str, &str); 3] = [
    ("kyoto", "kyotocabinet", "libkyotocabinet-dev"),
    ("tkrzw", "tkrzw", "libtkrzw-dev"),
    ("tdb", "tdb", "libtdb-dev"),
];

/// Whether the linker finds it. If there is no `cc` to ask, the linker will say so itself.
fn is_there(library: &str, out: &str) -> bool {
    let linked = Command::new("cc").args(["-shared", "-o", out, &format!("-l{library}")]).output();
    linked.map_or(true, |output| output.status.success())
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR").unwrap_or_default() + "/linked";
    for (feature, library, package) in LIBRARIES {
        let is_wanted = env::var_os(format!("CARGO_FEATURE_{}", feature.to_uppercase())).is_some();
        if is_wanted && !is_there(library, &out) {
            println!("cargo::error=feature `{feature}`: no lib{library} here; on Debian: apt-get install {package}");
        }
    }
}
