//! A login by a person who knows a password: keyboard-interactive (RFC 4256), or a plain password (RFC 4252, 8).

use russh::client::{AuthResult, KeyboardInteractiveAuthResponse as Response, Prompt};
use russh::{MethodKind, MethodSet};
use zeroize::Zeroizing;

use super::Session;
use crate::failure::{Failure, FailureKind};
use crate::limits::{QUESTION_CHARACTERS, QUESTION_ROUNDS, QUESTIONS};

/// What a server wants to know of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its words, at most [`QUESTION_CHARACTERS`] characters of any kind; none if it only wants the account's password.
    pub text: Option<String>,
    /// The answer may be seen while it is typed.
    pub echo: bool,
}

/// How a round of questions ended.
enum Round {
    LoggedIn,
    /// It refused what was answered.
    Refused,
    /// It refused before it had asked anything.
    Unasked,
}

impl Session {
    /// Logs in with what `ask` answers; `None` from it gives up. Like `ssh`, it lets a server ask in its own words
    /// first, where it offers that.
    ///
    /// What is answered is wiped from our memory afterwards, but not from russh's buffers.
    pub(crate) async fn authenticate_by_password(
        &mut self,
        user: &str,
        ask: &mut impl AsyncFnMut(Question) -> Option<Zeroizing<String>>,
    ) -> Result<(), Failure> {
        let methods = match self.handle()?.authenticate_none(user).await {
            Ok(AuthResult::Success) => return Ok(()),
            Ok(AuthResult::Failure { remaining_methods, .. }) if !self.handle.is_closed() => {
                remaining_methods
            }
            Ok(AuthResult::Failure { .. }) => return Err(self.lost_or(&russh::Error::Disconnect)),
            Err(error) => return Err(self.lost_or(&error)),
        };
        if methods.contains(&MethodKind::KeyboardInteractive) {
            match self.answer_questions(user, ask).await? {
                Round::LoggedIn => return Ok(()),
                Round::Refused => return Err(self.refused(user)),
                Round::Unasked => {}
            }
        }
        if !methods.contains(&MethodKind::Password) {
            let text = format!("{} takes no password for user {user}, only {}", self.peer, words(&methods));
            return Err(Failure::new(FailureKind::Auth, text));
        }
        let question = Question { text: None, echo: false };
        let password = ask(question).await.ok_or_else(|| given_up(user))?;
        match self.handle()?.authenticate_password(user, password.as_str()).await {
            Ok(answer) if self.is_taken(user, answer.clone())? => Ok(()),
            Ok(_) => Err(self.refused(user)),
            Err(error) => Err(self.lost_or(&error)),
        }
    }

    async fn answer_questions(
        &mut self,
        user: &str,
        ask: &mut impl AsyncFnMut(Question) -> Option<Zeroizing<String>>,
    ) -> Result<Round, Failure> {
        let mut response = self.handle()?.authenticate_keyboard_interactive_start(user, None).await;
        let mut asked = false;
        for _ in 0..QUESTION_ROUNDS {
            let prompts = match response {
                Ok(Response::Success) => return Ok(Round::LoggedIn),
                Ok(Response::Failure { .. }) if self.handle.is_closed() => {
                    return Err(self.lost_or(&russh::Error::Disconnect));
                }
                Ok(Response::Failure { .. }) if asked => return Ok(Round::Refused),
                Ok(Response::Failure { .. }) => return Ok(Round::Unasked),
                Ok(Response::InfoRequest { prompts, .. }) => prompts,
                Err(error) => return Err(self.lost_or(&error)),
            };
            if prompts.len() > QUESTIONS {
                break;
            }
            let mut answers = Vec::new();
            for prompt in prompts {
                asked = true;
                let answer = ask(question(prompt)).await.ok_or_else(|| given_up(user))?;
                answers.push(answer.to_string());
            }
            response = self.handle()?.authenticate_keyboard_interactive_respond(answers).await;
        }
        Err(Failure::new(FailureKind::Auth, format!("{} asks and asks, and lets nobody in", self.peer)))
    }

    fn refused(&self, user: &str) -> Failure {
        Failure::new(FailureKind::Auth, format!("{} refused the password for user {user}", self.peer))
    }
}

fn question(prompt: Prompt) -> Question {
    let text: String = prompt.prompt.chars().take(QUESTION_CHARACTERS).collect();
    Question { text: Some(text), echo: prompt.echo }
}

fn given_up(user: &str) -> Failure {
    Failure::new(FailureKind::Auth, format!("no password was given for user {user}"))
}

fn words(methods: &MethodSet) -> String {
    let words: Vec<&str> = methods.iter().map(<&str>::from).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}
