//! Draws the tree of `dfs tree` step by step, without holding it.

use super::entry::EntryJson;
use super::text::Shown;
use super::walk::Visit;
use crate::types::{DfsPath, Kind};
use std::io::{self, Write};

/// A tree as it is met: branches for people, or one nested JSON document in which a directory
/// has `children`.
pub struct Drawing {
    json: bool,
    terminal: bool,
    /// Of each directory on the way down: nothing comes behind it.
    lasts: Vec<bool>,
    /// The next JSON object has one before it.
    comma: bool,
}

impl Drawing {
    pub fn new(json: bool, terminal: bool) -> Self {
        Drawing {
            json,
            terminal,
            lasts: Vec::new(),
            comma: false,
        }
    }

    /// The root.
    pub fn begin(&mut self, out: &mut dyn Write, path: &DfsPath) -> io::Result<()> {
        if !self.json {
            return writeln!(out, "{}", Shown::new(path.as_str(), self.terminal));
        }
        out.write_all(b"{\"path\":")?;
        serde_json::to_writer(&mut *out, path)?;
        out.write_all(b",\"kind\":\"dir\",\"children\":[")
    }

    /// An entry; a directory's own entries follow.
    pub fn entry(&mut self, out: &mut dyn Write, visit: &Visit) -> io::Result<()> {
        if self.json {
            return self.json_entry(out, visit);
        }
        self.lasts.truncate(visit.depth - 1);
        for last in &self.lasts {
            out.write_all(if *last { "    " } else { "│   " }.as_bytes())?;
        }
        out.write_all(
            if visit.last {
                "└── "
            } else {
                "├── "
            }
            .as_bytes(),
        )?;
        self.lasts.push(visit.last);
        let slash = if visit.view.kind() == Kind::Dir {
            "/"
        } else {
            ""
        };
        writeln!(
            out,
            "{}{slash}",
            Shown::new(visit.name.as_str(), self.terminal)
        )
    }

    fn json_entry(&mut self, out: &mut dyn Write, visit: &Visit) -> io::Result<()> {
        if self.comma {
            out.write_all(b",")?;
        }
        let entry = serde_json::to_string(&EntryJson::new(&visit.path, &visit.view))?;
        self.comma = visit.view.kind() == Kind::File;
        match entry.strip_suffix('}') {
            // Left open: its children come next.
            Some(open) if !self.comma => write!(out, "{open},\"children\":["),
            _ => out.write_all(entry.as_bytes()),
        }
    }

    /// The end of a directory.
    pub fn leave(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.comma = true;
        if self.json {
            out.write_all(b"]}")
        } else {
            Ok(())
        }
    }

    /// The end of the tree.
    pub fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.json {
            out.write_all(b"]}\n")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::walk::Step;
    use crate::proto::EntryView;
    use crate::types::{Inode, Name};

    fn drawn(json: bool) -> String {
        let mut drawing = Drawing::new(json, false);
        let visit = |path: &str, kind, last| {
            let path = DfsPath::parse(path).unwrap();
            Step::Entry(Visit {
                name: path.name().unwrap_or(Name::parse("x").unwrap()),
                depth: path.depth(),
                view: EntryView::Bare {
                    inode: Inode(7),
                    kind,
                },
                last,
                path,
            })
        };
        let steps = [
            visit("/a", Kind::Dir, false),
            visit("/a/b", Kind::File, false),
            visit("/a/c", Kind::Dir, true),
            Step::Leave,
            Step::Leave,
            visit("/d", Kind::Dir, true),
            visit("/d/e", Kind::File, true),
            Step::Leave,
        ];
        let mut out = Vec::new();
        drawing.begin(&mut out, &DfsPath::root()).unwrap();
        for step in steps {
            match step {
                Step::Entry(visit) => drawing.entry(&mut out, &visit).unwrap(),
                Step::Leave => drawing.leave(&mut out).unwrap(),
            }
        }
        drawing.end(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn branches_end_where_nothing_comes_behind() {
        assert_eq!(
            drawn(false),
            "/\n├── a/\n│   ├── b\n│   └── c/\n└── d/\n    └── e\n"
        );
    }

    #[test]
    fn the_document_is_nested() {
        let tree: serde_json::Value = serde_json::from_str(&drawn(true)).unwrap();
        assert_eq!(tree["children"][0]["children"][1]["name"], "c");
        assert_eq!(
            tree["children"][0]["children"][1]["children"],
            serde_json::json!([])
        );
        assert_eq!(tree["children"][1]["children"][0]["path"], "/d/e");
        assert_eq!(tree["children"][1]["children"][0]["kind"], "file");
    }
}
