//! Strips the library: every test copies it, and its debug information is five times its code.

fn main() {
    println!("cargo::rustc-link-arg-cdylib=-Wl,--strip-all");
    println!("cargo::rerun-if-changed=build.rs");
}
