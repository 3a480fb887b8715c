//! The one consume loop: receive, take a slot, keep hidden, handle, acknowledge. Both roles that read a queue run it; what
//! a message means is the [`Handler`]'s.
//!
//! - [`consumer`]: receives messages while it holds a slot. `batching`: how many, as a pure policy.
//! - [`handler`]: the trait that a role implements, and what it gets for one message.
//! - `task`: one message from its receive to its end.
//!
//! Effect first, then delete. A message that is not done when the worker stops is released at once. A fault that may pass
//! leads to redelivery; a permanent fault puts the message into the dead-letter queue with its reason.

pub(crate) mod batching;
pub mod consumer;
pub mod handler;
mod task;

pub use self::consumer::Consumer;
pub use self::handler::{Handled, Handler, HandlerError, MessageContext, ThreadBudget};
