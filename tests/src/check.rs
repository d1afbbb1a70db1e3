//! The self-check's document, and what a story asks of it.

use serde_json::Value;

use crate::agent::Agent;
use crate::process::Output;

/// What `check --json` found.
#[derive(Debug)]
pub struct Found {
    /// The exit code.
    pub code: Option<i32>,
    /// The whole document.
    pub document: Value,
}

impl Found {
    /// Reads what it printed.
    ///
    /// # Panics
    /// If that isn't the document, or doesn't fit the exit code.
    pub fn of(output: &Output) -> Self {
        let document = serde_json::from_str(&output.stdout);
        let document: Value = document.unwrap_or_else(|why| panic!("{why}: {output:?}"));
        assert_eq!(document["schema"], 1);
        assert_eq!(document["exit"].as_i64(), output.code.map(i64::from), "{document:#}");
        assert_eq!(document["ok"], output.code == Some(0));
        assert_eq!(output.stderr, "", "there is no progress where nobody watches");
        Self { code: output.code, document }
    }

    /// The lines of a step.
    pub fn lines(&self, step: &str) -> Vec<&Value> {
        let steps = self.document["steps"].as_array().expect("the document has steps");
        steps.iter().filter(|line| line["step"] == step).collect()
    }

    /// The step fails, with words and a cure that have these parts.
    ///
    /// # Panics
    /// Otherwise.
    pub fn fails(&self, step: &str, text: &str, cure: &str) {
        let fits = |line: &&&Value| {
            let part = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            line["result"] == "failed" && part("text").contains(text) && part("cure").contains(cure)
        };
        assert_eq!(self.lines(step).iter().filter(fits).count(), 1, "{step}: {:#}", self.document);
    }

    /// Every line of the step is well.
    ///
    /// # Panics
    /// Otherwise.
    pub fn is_well(&self, step: &str) {
        let lines = self.lines(step);
        assert!(
            !lines.is_empty() && lines.iter().all(|line| line["result"] == "ok"),
            "{step}: {:#}",
            self.document
        );
    }

    /// These steps weren't looked at, and it says why.
    ///
    /// # Panics
    /// Otherwise.
    pub fn skips(&self, steps: &[&str], because: &str) {
        for step in steps {
            let lines = self.lines(step);
            let text = lines.first().and_then(|line| line["text"].as_str()).unwrap_or_default();
            assert!(lines.len() == 1 && lines[0]["result"] == "unknown", "{step}: {:#}", self.document);
            assert!(text.contains(because), "{step}: {text}");
        }
    }
}

/// Runs it.
pub async fn check(agent: &Agent, arguments: &[&str]) -> Found {
    Found::of(&agent.cli(&[&["check", "--json"], arguments].concat()).await)
}
