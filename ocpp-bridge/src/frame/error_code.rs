//! The codes of a CALLERROR.

use std::fmt;

/// The codes of a CALLERROR (OCPP-J 1.6 §4.2.3, errata 5.1 and 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Nobody knows the action.
    NotImplemented,
    /// The action is known, but not supported here.
    NotSupported,
    /// The receiver failed.
    InternalError,
    /// The payload is incomplete.
    ProtocolError,
    /// A matter of security.
    SecurityError,
    /// The payload isn't made as the action's is.
    FormationViolation,
    /// A field holds an invalid value.
    PropertyConstraintViolation,
    /// A field is missing, or there are too many. Written `Occurence…`, as the standard does.
    OccurenceConstraintViolation,
    /// A field is of the wrong type.
    TypeConstraintViolation,
    /// Anything else.
    GenericError,
}

// === impl ErrorCode ===

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 10] = [
        Self::NotImplemented,
        Self::NotSupported,
        Self::InternalError,
        Self::ProtocolError,
        Self::SecurityError,
        Self::FormationViolation,
        Self::PropertyConstraintViolation,
        Self::OccurenceConstraintViolation,
        Self::TypeConstraintViolation,
        Self::GenericError,
    ];

    /// As it is sent, the standard's misspelling included.
    pub fn as_wire(self) -> &'static str {
        match self {
            Self::NotImplemented => "NotImplemented",
            Self::NotSupported => "NotSupported",
            Self::InternalError => "InternalError",
            Self::ProtocolError => "ProtocolError",
            Self::SecurityError => "SecurityError",
            Self::FormationViolation => "FormationViolation",
            Self::PropertyConstraintViolation => "PropertyConstraintViolation",
            Self::OccurenceConstraintViolation => "OccurenceConstraintViolation",
            Self::TypeConstraintViolation => "TypeConstraintViolation",
            Self::GenericError => "GenericError",
        }
    }

    /// As it is received: both spellings of the two that have two, and `GenericError` for codes that the
    /// standard doesn't have.
    pub fn from_wire(text: &str) -> Self {
        match text {
            "FormatViolation" => Self::FormationViolation,
            "OccurrenceConstraintViolation" => Self::OccurenceConstraintViolation,
            text => Self::ALL.into_iter().find(|code| code.as_wire() == text).unwrap_or(Self::GenericError),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_wire())
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn every_code_is_read_as_it_is_written() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_wire(code.as_wire()), code);
        }
    }

    #[test]
    fn both_spellings_are_read() {
        assert_eq!(
            ErrorCode::from_wire("OccurrenceConstraintViolation"),
            ErrorCode::OccurenceConstraintViolation
        );
        assert_eq!(ErrorCode::from_wire("FormatViolation"), ErrorCode::FormationViolation);
        assert_eq!(ErrorCode::from_wire("RpcFrameworkError"), ErrorCode::GenericError);
    }
}
