//! The system's randomness, replaced on threads that run a simulation. TLS, QUIC's connection
//! ids, the maps of the standard library and tokio's own draws (`watch` wakes whoever waits in a
//! random order) all begin with `getrandom(2)`, and none of them can be given a generator. The
//! standard library calls it by a symbol that a program may define; so do the others.
//!
//! A thread that was not [seeded](seed) gets what the system gives.

use std::cell::Cell;

thread_local! {
    /// State of the generator; `None`: the system is asked. No destructor, so that it can be read
    /// at any time of a thread's life.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From here on this thread draws the same bytes as any other with this seed, and so does what
/// draws its first number on this thread from here on. tokio also counts the runtimes of the whole
/// process: equal runs need a process each.
pub fn seed(seed: u64) {
    STATE.set(Some(seed));
}

/// SplitMix64.
fn next(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (state, mixed ^ (mixed >> 31))
}

/// In place of the C library's.
///
/// # Safety
/// As for that: `buffer` must be good for writing `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    let Some(mut state) = STATE.get() else {
        // SAFETY: the caller's buffer, for which it answers.
        let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return got as libc::ssize_t;
    };
    let mut drawn = 0;
    for at in 0..length {
        if at % 8 == 0 {
            (state, drawn) = next(state);
        }
        // SAFETY: the caller says that so many bytes can be written; nothing is read.
        unsafe { buffer.cast::<u8>().add(at).write(drawn as u8) };
        drawn >>= 8;
    }
    STATE.set(Some(state));
    length as libc::ssize_t
}

#[test]
fn a_seeded_thread_finds_maps_in_the_same_order() {
    use std::collections::HashSet;
    let order = || {
        let drawn = std::thread::spawn(|| {
            seed(7);
            (0..100).collect::<HashSet<u32>>().into_iter().collect()
        });
        drawn.join().unwrap()
    };
    let first: Vec<u32> = order();
    assert_eq!(first, order());
}
