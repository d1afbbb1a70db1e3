//! DataTransfer of the CSMS (OCPP 1.6 §5.6): what the embedder has registered is put to it.

use rust_ocpp::v1_6::{messages::data_transfer::DataTransferResponse, types::DataTransferStatus};
use serde_json::value::RawValue;

use super::{
    ChargePoint, Event, RequestId,
    connection::Asked,
    dispatch::{Answer, Served},
    payload::fields,
};
use crate::{
    frame::MessageId,
    limits::{MAX_TRANSFER_CHARS, MAX_TRANSFER_MESSAGE_CHARS, MAX_VENDOR_CHARS},
};

/// What DataTransfers the embedder understands, of one vendor. Compared without regard to case (`CiString`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vendor {
    /// The vendor id, usually a domain name in reverse.
    pub id: String,
    /// The message ids; `""` stands for a DataTransfer without one.
    pub messages: Vec<String>,
}

pub(super) fn data_transfer(charge_point: &mut ChargePoint, id: &MessageId, payload: &RawValue) -> Served {
    let [vendor, message, content] = fields(payload, ["vendorId", "messageId", "data"])?;
    let vendor = vendor.text(MAX_VENDOR_CHARS)?;
    let message = message.optional_text(MAX_TRANSFER_MESSAGE_CHARS)?;
    let content = content.optional_text(MAX_TRANSFER_CHARS)?;

    let known = charge_point.settings.vendors.iter().find(|known| same(&known.id, &vendor));
    let Some(known) = known else {
        return unknown(DataTransferStatus::UnknownVendorId);
    };
    if !known.messages.iter().any(|known| same(known, message.as_deref().unwrap_or_default())) {
        return unknown(DataTransferStatus::UnknownMessageId);
    }
    let Some((request, security)) = charge_point.ask(id, Asked::Transfer) else { return Ok(None) };
    charge_point.raise(Event::DataTransfer {
        request,
        vendor_id: vendor.into_owned(),
        message_id: message.map(Into::into),
        data: content.map(Into::into),
        security,
    });
    Ok(None)
}

fn same(one: &str, another: &str) -> bool {
    one.eq_ignore_ascii_case(another)
}

fn unknown(status: DataTransferStatus) -> Served {
    Answer::result(&DataTransferResponse { status, data: None })
}

impl ChargePoint {
    /// Answers [`Event::DataTransfer`], as [`answer_change`](Self::answer_change) does ChangeConfiguration.
    pub fn answer_transfer(&mut self, request: RequestId, status: DataTransferStatus, data: Option<String>) {
        self.answer_asked(request, Asked::Transfer, Answer::of(&DataTransferResponse { status, data }));
    }
}
