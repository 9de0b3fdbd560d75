//! Avro behind a Confluent header: the header names the writer's schema, without which the bytes mean nothing.

use std::fmt;
use std::io::{self, Read};
use std::marker::PhantomData;
use std::sync::Once;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use serde::de::DeserializeOwned;

use super::{Decode, NotDecoded, Record, Schemas, confluent};

/// The most memory that a length in a value can make the reader take at once. A Kafka record of a usual topic has a MiB at most.
const ALLOCATION_BYTES_MAX: usize = 64 << 20;

/// A text that is no Avro schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: no Avro schema: {problem}")]
pub struct SchemaError {
    pub(super) place: String,
    pub(super) problem: String,
}

pub(super) fn parse(schema: &str, place: impl FnOnce() -> String) -> Result<Schema, SchemaError> {
    Schema::parse_str(schema).map_err(|error| SchemaError { place: place(), problem: error.to_string() })
}

/// Decodes Avro into a Rust type.
///
/// The writer's schema is found by the id in the header, in a registry or among files ([`Schemas`]). With a reader's schema,
/// Avro's resolution applies: fields that the writer has not get their defaults, others are left out. Without one, the Rust
/// type's own `#[serde(default)]` does the same.
pub struct Avro<T> {
    schemas: Schemas,
    reader: Option<Schema>,
    payload: PhantomData<fn() -> T>,
}

impl<T> Avro<T> {
    /// Reads by the writer's schema alone.
    #[must_use]
    pub fn new(schemas: impl Into<Schemas>) -> Self {
        static LIMIT: Once = Once::new();
        LIMIT.call_once(|| _ = apache_avro::util::max_allocation_bytes(ALLOCATION_BYTES_MAX));
        Self { schemas: schemas.into(), reader: None, payload: PhantomData }
    }

    /// Resolves to this schema, the one that the Rust type was made for.
    ///
    /// # Errors
    /// It is no Avro schema.
    pub fn reader_schema(mut self, schema: &str) -> Result<Self, SchemaError> {
        self.reader = Some(parse(schema, || "the reader's schema".to_owned())?);
        Ok(self)
    }
}

impl<T: DeserializeOwned + 'static> Decode<T> for Avro<T> {
    fn decode(&self, record: &Record) -> Result<T, NotDecoded> {
        let value = record.value.as_deref().unwrap_or_default();
        let (id, rest) = confluent::split(value).ok_or_else(confluent::no_header)?;
        let mut rest = Whole(rest);
        let writer = self.schemas.writer(id)?;
        // Texts of this library's errors quote values, which may not get into a log or a dead row.
        let unfit = |what: &str| NotDecoded::Malformed(format!("{what} (the writer's schema has id {id})"));
        let reader = GenericDatumReader::builder(&writer)
            .maybe_reader_schema(self.reader.as_ref())
            .build()
            .map_err(|_| unfit("the writer's schema cannot be resolved to the reader's"))?;
        let datum = reader.read_value(&mut rest).map_err(|_| unfit("the bytes are not of the writer's schema"))?;
        if !rest.0.is_empty() {
            return Err(unfit("there are bytes behind the value"));
        }
        apache_avro::from_value(&datum).map_err(|_| unfit("the value does not have the expected shape"))
    }
}

/// Bytes whose end is an error: where a value is cut off, the library would take null for what is missing.
struct Whole<'a>(&'a [u8]);

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.is_empty() && !buffer.is_empty() {
            true => Err(io::ErrorKind::InvalidData.into()),
            false => self.0.read(buffer),
        }
    }
}

impl<T> fmt::Debug for Avro<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Avro").field("schemas", &self.schemas).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::fuzz::damage_to;
    use crate::payload::OrderPaid;

    const WRITER: &str = r#"{"type":"record","name":"OrderPaid","namespace":"shop","fields":[
        {"name":"event_id","type":["null","string"],"default":null},
        {"name":"order_id","type":"string"},
        {"name":"user_id","type":"long"},
        {"name":"amount_minor","type":"long"},
        {"name":"currency","type":{"type":"enum","name":"Currency","symbols":["EUR","USD"]}},
        {"name":"timestamp","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"note","type":["null","string"],"default":null}]}"#;

    /// What fastavro 1.13.1 wrote by that schema, behind a header with schema id 7.
    const WRITTEN: &[u8] =
        b"\0\0\0\0\x07\x02\x06e-1\x10order-42\xd2\x0f\x9d\x1f\x02\x80\xa0\xd5\xed\xee\x66\x02\x08zo\xc3\xab";

    fn paid() -> OrderPaid {
        OrderPaid {
            event_id: Some("e-1".into()),
            order_id: "order-42".into(),
            user_id: 1001.into(),
            amount_minor: -1999,
            currency: "USD".to_owned(),
            timestamp: 1_767_225_600_000,
        }
    }

    fn given() -> Schemas {
        Schemas::given([(7, WRITER)]).unwrap()
    }

    #[test]
    fn a_value_of_another_library_is_read_by_its_writers_schema() {
        let decoder = Avro::<OrderPaid>::new(given());
        assert_eq!(decoder.decode(&Record::new(0, WRITTEN)), Ok(paid()));
    }

    #[test]
    fn a_readers_schema_adds_defaults_and_leaves_out_what_it_has_not() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Later {
            order_id: String,
            amount_minor: i64,
            discount_minor: i64,
        }
        let reader = r#"{"type":"record","name":"OrderPaid","namespace":"shop","fields":[
            {"name":"amount_minor","type":"long"},{"name":"order_id","type":"string"},
            {"name":"discount_minor","type":"long","default":7}]}"#;
        let decoder = Avro::<Later>::new(given()).reader_schema(reader).unwrap();
        let expected = Later { order_id: "order-42".to_owned(), amount_minor: -1999, discount_minor: 7 };
        assert_eq!(decoder.decode(&Record::new(0, WRITTEN)), Ok(expected));
    }

    #[test]
    fn broken_values_are_their_own_fault_and_tell_nothing_of_what_is_in_them() {
        let decoder = Avro::<OrderPaid>::new(given());
        let cut = &WRITTEN[..WRITTEN.len() - 3];
        let longer = [WRITTEN, b"x"].concat();
        let mut wrong_symbol = WRITTEN.to_vec();
        wrong_symbol[23] = 0x7e;
        assert_eq!(WRITTEN[21..24], *b"\x9d\x1f\x02", "the currency's place");
        for broken in [cut.to_vec(), longer, wrong_symbol, WRITTEN[5..].to_vec(), b"{}".to_vec(), Vec::new()] {
            let why = decoder.decode(&Record::new(0, &broken)).unwrap_err();
            assert!(matches!(&why, NotDecoded::Malformed(why) if !why.contains("order-42")), "{broken:?}: {why:?}");
        }
    }

    #[test]
    fn no_damage_makes_it_panic_or_tell_what_is_in_a_value() {
        let decoder = Avro::<OrderPaid>::new(given());
        damage_to(WRITTEN, |value| {
            let told = decoder.decode(&Record::new(0, value));
            told.err().is_none_or(|why| !why.to_string().contains("order-42"))
        });
    }

    #[test]
    fn a_length_that_lies_takes_no_memory() {
        // A text of about a tebibyte.
        let lie = [&b"\0\0\0\0\x07\x02"[..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]].concat();
        assert!(matches!(Avro::<OrderPaid>::new(given()).decode(&Record::new(0, lie)), Err(NotDecoded::Malformed(_))));
    }

    #[test]
    fn a_schema_that_was_not_given_is_no_events_fault() {
        let other = [&[0, 0, 0, 0, 8], &WRITTEN[5..]].concat();
        let why = Avro::<OrderPaid>::new(given()).decode(&Record::new(0, other)).unwrap_err();
        assert!(matches!(&why, NotDecoded::Hold(why) if why.contains("schema id 8")), "{why:?}");
        assert!(Schemas::given([(1, "{")]).unwrap_err().to_string().starts_with("schema id 1: no Avro schema"));
    }

    #[test]
    fn schemas_lie_in_files() {
        let file = std::env::temp_dir().join(format!("weir-avro-{}.avsc", std::process::id()));
        std::fs::write(&file, WRITER).unwrap();
        let schemas = Schemas::in_files([(7, file.clone())]).unwrap();
        assert_eq!(Avro::<OrderPaid>::new(schemas).decode(&Record::new(0, WRITTEN)), Ok(paid()));
        std::fs::remove_file(&file).unwrap();
        let missing = Schemas::in_files([(7, file)]).unwrap_err().to_string();
        assert!(missing.contains(".avsc") && missing.contains("cannot be read"), "{missing}");
    }
}
