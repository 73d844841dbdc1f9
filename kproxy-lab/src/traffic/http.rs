//! What plain HTTP servers answer.

use serde::{Deserialize, Serialize};

/// What came of an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpOutcome {
    /// A server answered.
    Answered(HttpAnswer),
    /// The connection was refused.
    Refused,
    /// Nothing came.
    Timeout,
    /// Another error.
    Failed(String),
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpAnswer {
    /// Its status: 200, 503, ….
    pub status: u16,
    /// Its headers, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

impl HttpAnswer {
    /// Value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Reads a whole answer; `None` if it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Some(Self { status, headers: lines.filter_map(header).collect(), body: body.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_with_its_headers() {
        let text = "HTTP/1.0 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\nno: 1\n";
        let answer = HttpAnswer::parse(text).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "no: 1\n"));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(answer.header("x"), None);
    }

    #[test]
    fn anything_else_is_no_answer() {
        for text in ["", "HTTP/1.0 200 OK", "SSH-2.0\r\n\r\n", "HTTP/1.0 x\r\n\r\n"] {
            assert_eq!(HttpAnswer::parse(text), None, "{text}");
        }
    }
}
