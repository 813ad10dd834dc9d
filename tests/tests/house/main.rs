//! What holds the sources themselves: arrows between crates, form, and the documents that are interfaces. Nothing is started.

mod layering;
mod manifest_files;
mod reference;
mod tidy;
