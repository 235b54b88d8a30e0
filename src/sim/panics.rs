//! Panics of simulated code: in production the first ends the process, here each is a violation.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    /// What this thread's panics said while somebody watches.
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Watches this thread while it lives.
pub struct Watch;

impl Watch {
    pub fn begin() -> Watch {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                let watched = SEEN.with_borrow_mut(|seen| match seen {
                    Some(seen) => {
                        seen.push(format!("panic: {panic}"));
                        true
                    }
                    None => false,
                });
                if !watched {
                    before(panic);
                }
            }));
        });
        SEEN.replace(Some(Vec::new()));
        Watch
    }

    /// What was seen since this was asked last.
    pub fn take() -> Vec<String> {
        SEEN.with_borrow_mut(|seen| seen.as_mut().map(std::mem::take).unwrap_or_default())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let seen = SEEN.take().unwrap_or_default();
        if std::thread::panicking() {
            // Nobody will take them any more.
            seen.iter().for_each(|panic| eprintln!("{panic}"));
        }
    }
}
