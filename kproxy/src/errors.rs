//! Errors on one line.

use std::error::Error;

/// An error with all its causes: `attach kp_ingress to device eth0: Operation not permitted`. A
/// cause that an outer text quotes already is not said again.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |&error| error.source()).fold(
        String::new(),
        |text, error| {
            let cause = error.to_string();
            match text.as_str() {
                "" => cause,
                text if text.contains(&cause) => text.to_owned(),
                text => format!("{text}: {cause}"),
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Step {
        text: &'static str,
        source: Option<Box<Step>>,
    }

    #[test]
    fn causes_follow_and_none_is_said_twice() {
        let step = |text, source: Option<Step>| Step { text, source: source.map(Box::new) };
        let deep =
            step("load it: call failed", Some(step("call failed", Some(step("EPERM", None)))));
        assert_eq!(with_causes(&deep), "load it: call failed: EPERM");
        assert_eq!(with_causes(&io::Error::other("alone")), "alone");
    }
}
