//! Standard output: results and nothing else. One lock, one buffer; a reader that has gone away
//! ends the verb quietly.

use super::failure::{Failure, Outcome};
use parking_lot::Mutex;
use serde::Serialize;
use std::io::{self, BufWriter, IsTerminal, Write};

/// Bytes gathered before they are written: a page of a listing.
const BUFFER_BYTES: usize = 128 << 10;

/// Where results go.
pub struct Output {
    writer: Mutex<BufWriter<Box<dyn Write + Send>>>,
    /// A person is looking: names are made harmless, lines appear at once.
    pub terminal: bool,
}

impl Output {
    pub fn stdout() -> Self {
        Output::new(Box::new(io::stdout()), io::stdout().is_terminal())
    }

    fn new(writer: Box<dyn Write + Send>, terminal: bool) -> Self {
        let writer = Mutex::new(BufWriter::with_capacity(BUFFER_BYTES, writer));
        Output { writer, terminal }
    }

    /// Writes with the lock held; what it writes stays together.
    pub fn write(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Outcome {
        let mut writer = self.writer.lock();
        let written = write(&mut *writer);
        let flushed = match written {
            Ok(()) if self.terminal => writer.flush(),
            other => other,
        };
        flushed.map_err(Failure::output)
    }

    /// One JSON document on a line of its own.
    pub fn json(&self, document: &impl Serialize) -> Outcome {
        self.write(|out| {
            serde_json::to_writer(&mut *out, document)?;
            out.write_all(b"\n")
        })
    }

    /// One line of text.
    pub fn line(&self, line: impl std::fmt::Display) -> Outcome {
        self.write(|out| writeln!(out, "{line}"))
    }

    /// Hands over what is buffered.
    pub fn flush(&self) -> Outcome {
        self.writer.lock().flush().map_err(Failure::output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn documents_and_lines_end_with_a_newline() {
        let shared = Shared::default();
        let output = Output::new(Box::new(shared.clone()), false);
        output.json(&[1, 2]).unwrap();
        output.line("x").unwrap();
        assert!(
            shared.0.lock().is_empty(),
            "a pipe is written to in large pieces"
        );
        output.flush().unwrap();
        assert_eq!(&shared.0.lock()[..], b"[1,2]\nx\n");
    }

    #[test]
    fn a_reader_that_has_gone_is_noticed_quietly() {
        let output = Output::new(Box::new(Closed), true);
        assert_eq!(output.line("x"), Err(Failure::PipeClosed));
        let output = Output::new(Box::new(Closed), false);
        let numbers: Vec<u32> = (0..100_000).collect();
        assert_eq!(output.json(&numbers), Err(Failure::PipeClosed));
    }
}
