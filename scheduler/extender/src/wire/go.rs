//! Decoding as Go's `encoding/json` does it, on top of serde.
//!
//! serde's derive refuses duplicate keys and `null`, and compares keys exactly; kube-scheduler's peers rely on none of that.
//! Errors grow their field path on the way out (`Pod.spec.containers[0].name: ...`), so good input pays nothing for it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A value of a Go struct field: read when present, its default when `null`.
pub(super) trait GoValue<'de>: Default {
    /// Reads a value that is not `null`.
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// Reads any [`GoValue`], `null` included.
pub(super) struct Go<T>(pub(super) T);

impl<'de, T: GoValue<'de>> Deserialize<'de> for Go<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Nullable<T>(PhantomData<T>);
        impl<'de, T: GoValue<'de>> Visitor<'de> for Nullable<T> {
            type Value = Go<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or null")
            }
            fn visit_none<E: Error>(self) -> Result<Go<T>, E> {
                Ok(Go(T::default()))
            }
            fn visit_unit<E: Error>(self) -> Result<Go<T>, E> {
                Ok(Go(T::default()))
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Go<T>, D::Error> {
                T::read(deserializer).map(Go)
            }
        }
        deserializer.deserialize_option(Nullable(PhantomData))
    }
}

macro_rules! plain_value {
    ($($kind:ty),+) => {$(
        impl<'de> GoValue<'de> for $kind {
            fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <$kind>::deserialize(deserializer)
            }
        }
    )+};
}
plain_value!(String, bool, i32, i64);

/// A key of an object: borrowed unless it holds an escape.
pub(super) struct Key<'de>(pub(super) Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <Cow<'de, str> as GoValue>::read(deserializer).map(Key)
    }
}

impl<'de: 'a, 'a> GoValue<'de> for Cow<'a, str> {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Cow<'de, str>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
            fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'de, T: GoValue<'de>> GoValue<'de> for Option<T> {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(deserializer).map(Some)
    }
}

impl<'de, T: GoValue<'de>> GoValue<'de> for Box<T> {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(deserializer).map(Box::new)
    }
}

impl<'de, T: GoValue<'de>> GoValue<'de> for Vec<T> {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: GoValue<'de>> Visitor<'de> for Items<T> {
            type Value = Vec<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
                let mut out = Vec::new();
                loop {
                    match items.next_element::<Go<T>>() {
                        Ok(Some(item)) => out.push(item.0),
                        Ok(None) => return Ok(out),
                        Err(error) => return Err(under(&format!("[{}]", out.len()), &error)),
                    }
                }
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

impl<'de, T: GoValue<'de>> GoValue<'de> for BTreeMap<String, T> {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: GoValue<'de>> Visitor<'de> for Entries<T> {
            type Value = BTreeMap<String, T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut out = BTreeMap::new();
                while let Some(Key(key)) = entries.next_key()? {
                    let value = entries.next_value::<Go<T>>().map_err(|error| under(&format!("[{key:?}]"), &error))?;
                    out.insert(key.into_owned(), value.0);
                }
                Ok(out)
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// Whether a field held anything but `null`. Its content is skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Given(pub bool);

impl<'de> GoValue<'de> for Given {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

/// How many items a list held. Their content is skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ItemCount(pub usize);

impl<'de> GoValue<'de> for ItemCount {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = ItemCount;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ItemCount, A::Error> {
                let mut count = 0_usize;
                while items.next_element::<IgnoredAny>()?.is_some() {
                    count = count.saturating_add(1);
                }
                Ok(ItemCount(count))
            }
        }
        deserializer.deserialize_seq(Items)
    }
}

/// Puts one step of the field path before an error.
///
/// A text that starts with `.` or `[` already carries a path: no message of `serde_json` starts so. `serde_json` reads the
/// line and column back from the end of a custom text, so they survive.
pub(super) fn under<E: Error + fmt::Display>(step: &str, error: &E) -> E {
    let text = error.to_string();
    let colon = if text.starts_with(['.', '[']) { "" } else { ": " };
    E::custom(format_args!("{step}{colon}{text}"))
}

/// Declares a struct with the Go name of each field, and decodes it by the rules of this file.
macro_rules! go_struct {
    ($(#[$meta:meta])* $vis:vis struct $name:ident $(<$life:lifetime>)? {
        $($(#[$field_meta:meta])* pub $field:ident: $kind:ty = $key:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        $vis struct $name $(<$life>)? {
            $($(#[$field_meta])* pub $field: $kind,)+
        }

        impl<'de $(: $life, $life)?> crate::wire::go::GoValue<'de> for $name $(<$life>)? {
            fn read<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields $(<$life>(std::marker::PhantomData<&$life ()>))?;
                impl<'de $(: $life, $life)?> serde::de::Visitor<'de> for Fields $(<$life>)? {
                    type Value = $name $(<$life>)?;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("an object (", stringify!($name), ")"))
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                        let mut out = Self::Value::default();
                        while let Some(crate::wire::go::Key(key)) = map.next_key()? {
                            $(if key.eq_ignore_ascii_case($key) {
                                let value = map.next_value::<crate::wire::go::Go<$kind>>();
                                out.$field = value.map_err(|e| crate::wire::go::under(concat!(".", $key), &e))?.0;
                                continue;
                            })+
                            map.next_value::<serde::de::IgnoredAny>()?;
                        }
                        Ok(out)
                    }
                }
                deserializer.deserialize_map(crate::wire::go::fields!(Fields $($life)?))
            }
        }

        impl<'de $(: $life, $life)?> serde::Deserialize<'de> for $name $(<$life>)? {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::wire::go::Go::deserialize(deserializer).map(|value| value.0)
            }
        }
    };
}

/// The visitor of [`go_struct`], with or without a lifetime.
macro_rules! fields {
    ($name:ident) => {
        $name
    };
    ($name:ident $life:lifetime) => {
        $name(std::marker::PhantomData)
    };
}

pub(super) use {fields, go_struct};
