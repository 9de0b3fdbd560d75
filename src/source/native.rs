//! Two librdkafka calls that rdkafka has no safe form of: the id of a topic (`rd_kafka_DescribeTopics`), and a
//! partition's watermarks as its last fetch saw them (`rd_kafka_get_watermark_offsets`). Every pointer made
//! here is destroyed here.
#![expect(unsafe_code, reason = "librdkafka's C interface; see the module's text")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;
use uuid::Uuid;

/// Why a topic's id is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicIdError {
    /// The broker does not know the topic.
    #[error("topic {0:?} does not exist")]
    Missing(String),
    /// The broker did not say.
    #[error("cannot describe topic {topic:?}: {message}")]
    Unanswered {
        /// The topic.
        topic: String,
        /// librdkafka's word for what happened.
        message: String,
    },
}

/// Destroys a librdkafka object at the end of a scope.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the matching constructor, is not null, and is destroyed only here.
        unsafe { (self.1)(self.0) }
    }
}

impl<T> Owned<T> {
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        (!pointer.is_null()).then_some(Self(pointer, destroy))
    }
}

/// The id a broker gave a topic when it was made. Blocks for at most the time-out.
///
/// # Errors
/// The topic does not exist, or no broker answers in time.
pub fn topic_id<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> Result<Uuid, TopicIdError> {
    topic_id_from(client, None, topic, timeout)
}

/// The same, asked of one broker in place of the controller.
pub(crate) fn topic_id_from<C: ClientContext>(
    client: &Client<C>,
    broker: Option<i32>,
    topic: &str,
    timeout: Duration,
) -> Result<Uuid, TopicIdError> {
    let unanswered = |message: &str| TopicIdError::Unanswered { topic: topic.to_owned(), message: message.to_owned() };
    let name = CString::new(topic).map_err(|_| TopicIdError::Missing(topic.to_owned()))?;
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    let rk = client.native_ptr();
    // SAFETY: `rk` lives as long as `client`; librdkafka copies the names; the options, the collection and the queue
    // outlive the call, and everything read from the event is copied before the event is destroyed.
    unsafe {
        let mut names: [*const c_char; 1] = [name.as_ptr()];
        let op = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = Owned::new(sys::rd_kafka_AdminOptions_new(rk, op), sys::rd_kafka_AdminOptions_destroy);
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let topics = Owned::new(topics, sys::rd_kafka_TopicCollection_destroy);
        let queue = Owned::new(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy);
        let (Some(options), Some(topics), Some(queue)) = (options, topics, queue) else {
            return Err(unanswered("out of memory"));
        };
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, timeout_ms, ptr::null_mut(), 0);
        if let Some(broker) = broker {
            sys::rd_kafka_AdminOptions_set_broker(options.0, broker, ptr::null_mut(), 0);
        }
        sys::rd_kafka_DescribeTopics(rk, topics.0, options.0, queue.0);
        let event = sys::rd_kafka_queue_poll(queue.0, timeout_ms);
        let Some(event) = Owned::new(event, sys::rd_kafka_event_destroy) else {
            return Err(unanswered("no broker answered in time"));
        };
        if sys::rd_kafka_event_error(event.0) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(unanswered(&text(sys::rd_kafka_event_error_string(event.0))));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        let mut count = 0;
        let described = match result.is_null() {
            true => ptr::null_mut(),
            false => sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count),
        };
        if described.is_null() || count != 1 {
            return Err(unanswered("the answer is not about one topic"));
        }
        described_id(*described, topic)
    }
}

/// # Safety
/// `description` must be valid while this runs.
unsafe fn described_id(
    description: *const sys::rd_kafka_TopicDescription_t,
    topic: &str,
) -> Result<Uuid, TopicIdError> {
    use sys::rd_kafka_resp_err_t as code;
    // SAFETY: the caller's promise; the error and the id belong to the description.
    unsafe {
        let error = sys::rd_kafka_TopicDescription_error(description);
        match if error.is_null() { code::RD_KAFKA_RESP_ERR_NO_ERROR } else { sys::rd_kafka_error_code(error) } {
            code::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => return Err(TopicIdError::Missing(topic.to_owned())),
            _ => {
                let message = text(sys::rd_kafka_error_string(error));
                return Err(TopicIdError::Unanswered { topic: topic.to_owned(), message });
            }
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(description);
        let high = sys::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
        let low = sys::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
        match Uuid::from_u64_pair(high, low) {
            id if id.is_nil() => {
                let message =
                    "the broker gives topics no ids (Apache Kafka does since 2.8), and weir needs them".to_owned();
                Err(TopicIdError::Unanswered { topic: topic.to_owned(), message })
            }
            id => Ok(id),
        }
    }
}

/// # Safety
/// `text` must be null or a C string that is valid while this runs.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return "unknown".to_owned();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A partition's first and end offset as the last fetch saw them; asks nobody. `None` before the first fetch.
pub(crate) fn cached_watermarks<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: i32,
) -> Option<(i64, i64)> {
    let name = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: `native_ptr` lives as long as `client`, the name as long as this call, and both numbers are ours.
    let code = unsafe {
        sys::rd_kafka_get_watermark_offsets(client.native_ptr(), name.as_ptr(), partition, &raw mut low, &raw mut high)
    };
    (code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some((low, high))
}
