//! The parameters of a workload: its JSON object without the field `type`, which says whose parameters they are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::CowStrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

use super::Invalid;

/// Reads the parameters out of the text of a workload object.
///
/// # Errors
/// The first thing that is wrong. Where that is, is looked for only then.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Invalid> {
    let mut json = serde_json::Deserializer::from_str(text);
    T::deserialize(Untyped(&mut json)).map_err(|error| {
        let mut json = serde_json::Deserializer::from_str(text);
        match serde_path_to_error::deserialize::<_, T>(Untyped(&mut json)) {
            Err(error) => Invalid::at_path(&error),
            // The same text failed before, so this is not reached; the error is good without its place, too.
            Ok(_) => Invalid::new("", error.to_string()),
        }
    })
}

/// Reads an object as a map, in which a name that is there twice would silently have its last value.
pub(crate) fn distinct<'de, D, V>(object: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Distinct<V>(PhantomData<V>);

    impl<'de, V: Deserialize<'de>> Visitor<'de> for Distinct<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
            let mut values = BTreeMap::new();
            while let Some((name, value)) = fields.next_entry()? {
                match values.entry(name) {
                    Entry::Vacant(place) => drop(place.insert(value)),
                    Entry::Occupied(first) => return Err(A::Error::custom(format_args!("duplicate field `{}`", first.key()))),
                }
            }
            Ok(values)
        }
    }

    object.deserialize_map(Distinct(PhantomData))
}

/// Passes an object on without its field `type`; also the visitor and the access to the fields that this takes.
struct Untyped<T>(T);

#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Untyped<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Untyped(visitor))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Untyped<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Untyped(fields))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Untyped<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(Name(name)) = self.0.next_key()? {
            if name != "type" {
                return seed.deserialize(CowStrDeserializer::new(name)).map(Some);
            }
            self.0.next_value::<IgnoredAny>()?;
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {
        below: u64,
        #[serde(default)]
        names: Vec<String>,
        #[serde(default, deserialize_with = "distinct")]
        sizes: BTreeMap<String, u64>,
    }

    #[rstest]
    #[case::first(r#"{"type":"primes","below":7}"#, 7, &[])]
    #[case::last(r#"{"names":["a\nb"],"below":7,"type":{"any":[1]}}"#, 7, &["a\nb"])]
    fn the_type_is_passed_over(#[case] text: &str, #[case] below: u64, #[case] names: &[&str]) {
        let names = names.iter().map(ToString::to_string).collect();
        assert_eq!(parse::<Parameters>(text), Ok(Parameters { below, names, sizes: BTreeMap::new() }));
    }

    #[rstest]
    #[case::unknown(
        r#"{"type":"primes","below":7,"above":1}"#,
        "/above",
        "unknown field `above`, expected one of `below`, `names`, `sizes`"
    )]
    #[case::missing(r#"{"type":"primes"}"#, "", "missing field `below`")]
    #[case::twice(r#"{"below":7,"below":8}"#, "", "duplicate field `below`")]
    #[case::twice_inside(r#"{"below":7,"sizes":{"a":1,"b":2,"a":1}}"#, "/sizes", "duplicate field `a`")]
    #[case::no_object(r#"{"below":7,"sizes":[1]}"#, "/sizes", "invalid type: sequence, expected an object")]
    #[case::deep(r#"{"below":7,"names":["a",3]}"#, "/names/1", "invalid type: integer `3`, expected a string")]
    #[case::number(r#"{"below":1e6}"#, "/below", "invalid type: floating point `1000000.0`, expected a whole number from 0 on")]
    fn what_is_wrong_is_named_with_its_place(#[case] text: &str, #[case] pointer: &str, #[case] message: &str) {
        assert_eq!(parse::<Parameters>(text), Err(Invalid::new(pointer, message)));
    }
}
