//! The one consume loop: receive, take a slot, keep in flight, handle, acknowledge. Both roles that read a queue run it; what
//! a message means is the [`Handler`]'s.
//!
//! - [`consumer`]: receives messages while it holds a slot. `batching`: how many, as a pure policy.
//! - [`handler`]: the trait that a role implements, and what it gets for one message.
//! - `task`: one message from its receive to its end.
//! - `joined`: two queues that are received from as one.
//!
//! - `outage`: services that all messages need, and how often a message failed although they were well.
//!
//! Effect first, then delete. A message that is not done when the worker stops is released at once. A permanent fault puts
//! the message into the dead-letter queue with its reason. Any other fault is followed by a probe of the services that
//! every message needs: where one is down nothing is received until it answers again; else the message alone waits with
//! back-off, and is given up after so many failures of its own.

pub(crate) mod batching;
pub mod consumer;
pub mod handler;
pub mod joined;
mod outage;
mod task;

pub use self::consumer::Consumer;
pub use self::handler::{
    Handled, Handler, HandlerError, MessageContext, ServiceOutage, ThreadBudget,
};
