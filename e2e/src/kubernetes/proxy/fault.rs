//! What happens at a call.

use std::{fmt, time::Duration};

/// Where a call is when something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The server never sees it.
    BeforeSent,
    /// The server has done it; the operator does not learn so.
    BeforeReply,
    /// The operator was answered.
    AfterReply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL for the operator, which is started again as a kubelet does.
    Kill(Moment),
    /// The connection breaks.
    Break(Moment),
    /// The call arrives late, by when the operator has given it up.
    Delay(Duration),
    /// This status code instead of what was asked for; 504 although it was done, as after a timeout of etcd.
    Answer(u16),
    /// Every open watch ends with 410 Gone.
    Expire,
    /// From here on every watch ends after this long.
    CutWatches(Duration),
}

impl Fault {
    pub const KILLS: [Self; 3] =
        [Self::Kill(Moment::BeforeSent), Self::Kill(Moment::BeforeReply), Self::Kill(Moment::AfterReply)];
    pub const OTHERS: [Self; 10] = [
        Self::Break(Moment::BeforeSent),
        Self::Break(Moment::BeforeReply),
        Self::Delay(Duration::from_secs(30)),
        Self::Answer(409),
        Self::Answer(429),
        Self::Answer(500),
        Self::Answer(503),
        Self::Answer(504),
        Self::Expire,
        Self::CutWatches(Duration::from_secs(1)),
    ];
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeSent => "before it is sent",
            Self::BeforeReply => "before its reply",
            Self::AfterReply => "after its reply",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(moment) => write!(f, "kill {moment}"),
            Self::Break(moment) => write!(f, "connection broken {moment}"),
            Self::Delay(time) => write!(f, "late by {time:?}"),
            Self::Answer(code) => write!(f, "answer {code}"),
            Self::Expire => f.write_str("watches answer 410"),
            Self::CutWatches(time) => write!(f, "watches cut every {time:?} from here on"),
        }
    }
}
