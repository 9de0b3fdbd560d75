//! Topic `order-events`: the life of orders, keyed by order.

use serde::{Deserialize, Serialize};

use super::attributes::{payload, payload_of_union};
use super::{Id, UserId};

/// An event of topic `order-events`; the field `type` says which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OrderEvent {
    /// `order_paid`: an order was paid for.
    OrderPaid(OrderPaid),
    /// `order_cancelled`: an order will not be carried out.
    OrderCancelled(OrderCancelled),
}

/// A payment, on topic `order-events`. A consumer of payments only can decode to this type directly:
/// the field `type` beside these is ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OrderPaid {
    /// The event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Id>,
    /// The order.
    pub order_id: Id,
    /// Who paid.
    pub user_id: UserId,
    /// The amount in the currency's smallest unit (cents), so that no sum is rounded.
    pub amount_minor: i64,
    /// The currency's ISO 4217 code.
    pub currency: String,
    /// When, in milliseconds since 1970.
    pub timestamp: i64,
}

/// A cancellation, on topic `order-events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OrderCancelled {
    /// The event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Id>,
    /// The order.
    pub order_id: Id,
    /// Why, if somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When, in milliseconds since 1970.
    pub timestamp: i64,
}

payload!(OrderPaid, |_| "order_paid", |event| Some(&event.user_id));
payload!(OrderCancelled, |_| "order_cancelled", |_| None);
payload_of_union!(OrderEvent { OrderPaid, OrderCancelled });

#[cfg(test)]
pub(super) const SHIPPED: super::Shipped = super::Shipped::new::<OrderEvent>(
    "order-events",
    &[
        r#"{"type":"order_paid","event_id":"e","order_id":77,"user_id":"1001","amount_minor":1999,"currency":"EUR","timestamp":1}"#,
        r#"{"type":"order_cancelled","order_id":"o-1","reason":"sold out","timestamp":1}"#,
    ],
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payment_can_be_read_alone() {
        let json = SHIPPED.samples[0];
        let OrderEvent::OrderPaid(expected) = serde_json::from_str(json).unwrap() else {
            panic!("a payment");
        };
        assert_eq!(serde_json::from_str::<OrderPaid>(json).unwrap(), expected);
    }
}
