//! How `ls` and `find` write entries as they come: lines, one JSON document, or a document a
//! line. The document's closing fields stand behind its entries, so that nothing is held.

use super::context::Context;
use super::entry::{EntryJson, LineStyle, write_line};
use super::failure::Outcome;
use crate::error::Error;
use crate::proto::EntryView;
use crate::types::{DfsPath, DirVersion, Name};
use serde::Serialize;
use std::io::Write;

/// The form of a listing.
#[derive(Clone, Copy)]
pub enum Form {
    /// A line each.
    Lines(LineStyle),
    /// `{"path",…,"entries":[…],…}`.
    Document,
    /// A JSON document each.
    Stream,
}

/// What closes a listing's document.
#[derive(Serialize)]
pub struct Closing {
    /// Of one directory's listing; null where several directories were read.
    pub dir_version: Option<DirVersion>,
    pub one_point_in_time: bool,
    /// A limit cut the listing: there are more entries.
    pub truncated: bool,
    /// The name to go on behind, if a limit cut the listing of one directory by name.
    pub next: Option<Name>,
}

/// Writes one listing.
pub struct Listing<'a> {
    cx: &'a Context,
    form: Form,
    open: bool,
    entries: u64,
}

impl<'a> Listing<'a> {
    pub fn new(cx: &'a Context, form: Form) -> Self {
        Listing {
            cx,
            form,
            open: false,
            entries: 0,
        }
    }

    /// Begins it. Called when the first page is there: a listing that fails writes nothing.
    pub fn open(&mut self, path: &DfsPath) -> Outcome {
        if std::mem::replace(&mut self.open, true) || !matches!(self.form, Form::Document) {
            return Ok(());
        }
        self.cx.out.write(|out| {
            out.write_all(b"{\"path\":")?;
            serde_json::to_writer(&mut *out, path)?;
            out.write_all(b",\"entries\":[")
        })
    }

    /// A page of the directory `dir`.
    pub fn page(&mut self, dir: &DfsPath, entries: &[(Name, EntryView)]) -> Outcome {
        if let Form::Lines(style) = self.form {
            return self.cx.out.write(|out| {
                let mut lines = entries.iter();
                lines.try_for_each(|(name, view)| write_line(out, name.as_str(), view, style))
            });
        }
        for (name, view) in entries {
            self.entry("", &dir.join(name)?, view)?;
        }
        Ok(())
    }

    /// One entry; on a line it shows as `shown`.
    pub fn entry(&mut self, shown: &str, path: &DfsPath, view: &EntryView) -> Outcome {
        let first = self.entries == 0;
        self.entries += 1;
        match self.form {
            Form::Lines(style) => self.cx.out.write(|out| write_line(out, shown, view, style)),
            Form::Stream => {
                self.cx.out.json(&EntryJson::new(path, view))?;
                // Somebody reads along.
                self.cx.out.flush()
            }
            Form::Document => self.cx.out.write(|out| write_item(out, first, path, view)),
        }
    }

    /// Ends it.
    pub fn close(self, closing: &impl Serialize) -> Outcome {
        if !matches!(self.form, Form::Document) {
            return Ok(());
        }
        let tail = serde_json::to_string(closing).map_err(|e| Error::failed(e.to_string()))?;
        let fields = tail.trim_start_matches('{').trim_end_matches('}');
        let comma = if fields.is_empty() { "" } else { "," };
        self.cx.out.line(format_args!("]{comma}{fields}}}"))
    }
}

fn write_item(
    out: &mut dyn Write,
    first: bool,
    path: &DfsPath,
    view: &EntryView,
) -> std::io::Result<()> {
    if !first {
        out.write_all(b",")?;
    }
    Ok(serde_json::to_writer(out, &EntryJson::new(path, view))?)
}
