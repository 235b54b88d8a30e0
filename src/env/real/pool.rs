//! A bounded pool of named threads, for `env::real` alone.
//!
//! Invariants:
//! 1. At most `threads` threads and at most [`QUEUE_MAX`] waiting jobs exist.
//! 2. Every accepted job runs, in order of acceptance, also when the pool is dropped.
//! 3. `submit` from one of the pool's own threads never waits (it could wait for itself).

use parking_lot::{Condvar, Mutex};
use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Jobs that may wait. Callers bound their work themselves; this bounds a mistake of theirs: one
/// job is some hundred bytes, so a full queue is a few MiB.
const QUEUE_MAX: usize = 16_384;

pub type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    /// The pool this thread works for (the address of its `Shared`), 0 for none.
    static WORKS_FOR: Cell<usize> = const { Cell::new(0) };
}

/// The pool; dropping it lets the queued jobs finish and ends its threads.
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    threads_max: usize,
    /// Called with the pool's name and the panic's text when a job panicked.
    on_panic: fn(&str, &str),
    state: Mutex<State>,
    /// A job was queued, or the pool closed.
    work: Condvar,
    /// The queue is no longer full.
    room: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Pool {
    /// Threads are called `name-1`, `name-2` and so on, and start when they are needed.
    pub fn new(name: &'static str, threads_max: usize, on_panic: fn(&str, &str)) -> Self {
        Pool {
            shared: Arc::new(Shared {
                name,
                threads_max: threads_max.max(1),
                on_panic,
                state: Mutex::default(),
                work: Condvar::new(),
                room: Condvar::new(),
            }),
        }
    }

    /// Queues a job. Waits while the queue is full; a thread of this pool runs it at once then.
    pub fn submit(&self, job: Job) {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        while state.queue.len() >= QUEUE_MAX {
            if WORKS_FOR.get() == shared.id() {
                drop(state);
                return shared.run(job);
            }
            shared.room.wait(&mut state);
        }
        state.queue.push_back(job);
        if state.idle >= state.queue.len() || state.threads >= shared.threads_max {
            drop(state);
            shared.work.notify_one();
            return;
        }
        state.threads += 1;
        let number = state.threads;
        drop(state);
        self.start_thread(number);
    }

    /// Starts a thread; where the system has none to give, the others do its work, and without
    /// any other thread the caller does.
    fn start_thread(&self, number: usize) {
        let shared = self.shared.clone();
        let started = std::thread::Builder::new()
            .name(format!("{}-{number}", self.shared.name))
            .spawn(move || shared.work_until_closed());
        if let Err(error) = started {
            tracing::warn!(pool = self.shared.name, %error, "cannot start a thread");
            let alone = {
                let mut state = self.shared.state.lock();
                state.threads -= 1;
                state.threads == 0
            };
            while alone && let Some(job) = self.shared.take_waiting() {
                self.shared.run(job);
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn work_until_closed(&self) {
        WORKS_FOR.set(self.id());
        while let Some(job) = self.take() {
            self.run(job);
        }
    }

    /// The next job; waits for one. `None` once the pool is closed and empty.
    fn take(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                self.room.notify_one();
                return Some(job);
            }
            if state.closed {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            self.work.wait(&mut state);
            state.idle -= 1;
        }
    }

    fn take_waiting(&self) -> Option<Job> {
        self.state.lock().queue.pop_front()
    }

    fn run(&self, job: Job) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
            (self.on_panic)(self.name, &panic_text(&*panic));
        }
    }
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_string(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without a text".to_string(),
    }
}

/// Ends the process after a panic: half a node is worse than none.
pub fn abort_process(who: &str, what: &str) {
    tracing::error!(who, what, "a task panicked; stopping");
    eprintln!("dfs: {who} failed unexpectedly ({what}); the process stops; start it again");
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::sync_channel;

    fn pool(threads: usize) -> Pool {
        Pool::new("test", threads, abort_process)
    }

    #[test]
    fn jobs_run_beside_each_other_on_named_threads() {
        let pool = pool(3);
        let barrier = Arc::new(Barrier::new(3));
        let (send, receive) = sync_channel(3);
        for _ in 0..3 {
            let (barrier, send) = (barrier.clone(), send.clone());
            pool.submit(Box::new(move || {
                barrier.wait();
                send.send(std::thread::current().name().unwrap().to_string())
                    .unwrap();
            }));
        }
        let mut names: Vec<_> = (0..3).map(|_| receive.recv().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["test-1", "test-2", "test-3"]);
    }

    #[test]
    fn invariant_2_a_dropped_pool_finishes_its_queue() {
        let done = Arc::new(AtomicUsize::new(0));
        let (go, wait) = sync_channel::<()>(0);
        let (finished, all) = sync_channel::<()>(1);
        let pool = pool(1);
        pool.submit(Box::new(move || wait.recv().unwrap()));
        for _ in 0..100 {
            let done = done.clone();
            pool.submit(Box::new(move || {
                done.fetch_add(1, Ordering::SeqCst);
            }));
        }
        pool.submit(Box::new(move || finished.send(()).unwrap()));
        drop(pool);
        go.send(()).unwrap();
        all.recv().unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 100);
    }

    #[test]
    fn invariant_3_a_job_may_submit_into_a_full_queue_of_its_own_pool() {
        let pool = Arc::new(pool(1));
        let (send, receive) = sync_channel(1);
        let inner = pool.clone();
        pool.submit(Box::new(move || {
            for _ in 0..QUEUE_MAX {
                inner.submit(Box::new(|| {}));
            }
            let mut ran = false;
            let (told, tell) = sync_channel(1);
            inner.submit(Box::new(move || told.send(true).unwrap()));
            ran |= tell.try_recv().unwrap_or(false);
            send.send(ran).unwrap();
        }));
        assert!(receive.recv().unwrap());
    }

    #[test]
    fn a_panic_is_reported_and_the_thread_goes_on() {
        static REPORTS: AtomicUsize = AtomicUsize::new(0);
        let pool = Pool::new("test", 1, |_, text| {
            assert_eq!(text, "broken 7");
            REPORTS.fetch_add(1, Ordering::SeqCst);
        });
        pool.submit(Box::new(|| panic!("broken {}", 7)));
        let (send, receive) = sync_channel(1);
        pool.submit(Box::new(move || send.send(()).unwrap()));
        receive.recv().unwrap();
        assert_eq!(REPORTS.load(Ordering::SeqCst), 1);
    }
}
