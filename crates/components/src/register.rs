//! The tables of components: one line each, so that a file's name is a configuration's `type`.

/// Declares the files of a folder as modules, and a table of their `SPEC`s by name.
macro_rules! register {
    ($(#[$doc:meta])* $table:ident: $spec:ty => $($name:ident),* $(,)?) => {
        $(pub mod $name;)*

        $(#[$doc])*
        pub const $table: &[(&str, &$spec)] = &[$((stringify!($name), &$name::SPEC)),*];
    };
}
