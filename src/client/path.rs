//! A path of the API with its query, percent-encoded.

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

/// A path with its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    text: String,
    queried: bool,
}

impl Path {
    /// A path without a query, encoded already.
    pub fn new(text: String) -> Path {
        Path { text, queried: false }
    }

    /// What comes behind `route`, a name of any kind, as one segment.
    pub fn named(route: &str, name: &str) -> Path {
        Path::new(format!("{route}{}", percent_encode(name.as_bytes(), NON_ALPHANUMERIC)))
    }

    /// With one more parameter; bare if it has no value.
    pub fn with(self, name: &str, value: Option<&str>) -> Path {
        self.with_bytes(name, value.map(str::as_bytes))
    }

    /// The same with a value that need not be text.
    pub fn with_bytes(mut self, name: &str, value: Option<&[u8]>) -> Path {
        self.text.push(if self.queried { '&' } else { '?' });
        self.queried = true;
        self.text.push_str(name);
        if let Some(value) = value {
            self.text.push('=');
            self.text.extend(percent_encode(value, NON_ALPHANUMERIC));
        }
        self
    }
}

impl From<Path> for String {
    fn from(path: Path) -> String {
        path.text
    }
}
