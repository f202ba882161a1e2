//! Snowflake mode: IDs from the worker window, no store on the way.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    counter::Ranges,
    snowflake::{DrawError, Sequencer},
    store::Taken,
};

use super::{Engine, IssueError, Issued, IssuedTemplate, Order, Source, overflow, stamp::Stamp};

/// How long a request waits for a window to be renewed.
const WINDOW_PATIENCE: Duration = Duration::from_millis(250);

const TICK: Duration = Duration::from_millis(1);

impl Engine {
    /// Draws the whole order now, or nothing: `None` where it would have to wait.
    pub(super) fn draw_at_once<'a>(&self, order: &Order<'a>) -> Option<Result<Issued<'a>, IssueError>> {
        let sequencer = self.ids.sequencer();
        let sequencer = sequencer.as_deref()?;
        let mut values = Ranges::new();
        match self.draw(sequencer, u64::from(order.count), &mut values) {
            Ok(0) => {}
            // What was drawn is let go: IDs are plentiful, and the slow path asks for the whole order.
            Ok(_missing) => return None,
            Err(DrawError::Wait(_) | DrawError::BeyondMark) => return None,
            Err(error) => return Some(Err(error.into())),
        }
        Some(within_bounds(order, &values).and_then(|()| {
            let template = IssuedTemplate::InForce(order.template);
            Ok(Issued::values(order, template, self.stamp(order)?, values, Source::Primary))
        }))
    }

    /// Draws the whole order, waiting for the clock where it must, and records it under the idempotency key, if there is one.
    pub(super) async fn issue_snowflakes(
        &self,
        order: &Order<'_>,
        stamp: Stamp,
    ) -> Result<(Taken, Stamp), IssueError> {
        let limit = self.settings.storage_timeout;
        let values = tokio::time::timeout(limit, self.draw_all(order.count))
            .await
            .unwrap_or(Err(IssueError::Busy(order.count)))?;
        within_bounds(order, &values)?;
        let Some(claim) = self.claim(order, &stamp)? else { return Ok((Taken::Fresh(values), stamp)) };
        let remembered = tokio::time::timeout(limit, self.idempotency.remember(claim, values)).await;
        Ok((remembered.map_err(|_elapsed| IssueError::Timeout)??, stamp))
    }

    async fn draw_all(&self, count: u32) -> Result<Ranges, IssueError> {
        let mut values = Ranges::new();
        let mut until = None;
        loop {
            let wait = match self.draw_more(count, &mut values) {
                Ok(0) => return Ok(values),
                Ok(_missing) => TICK,
                Err(DrawError::Wait(wait)) => wait,
                // A process that was stopped for a while finds its window used up, and renews it in a moment.
                Err(DrawError::BeyondMark) => {
                    let now = Instant::now();
                    if now >= *until.get_or_insert(now + WINDOW_PATIENCE) {
                        return Err(IssueError::NoWindow);
                    }
                    TICK
                }
                Err(error) => return Err(error.into()),
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Draws towards `count`; answers how many are missing.
    fn draw_more(&self, count: u32, values: &mut Ranges) -> Result<u64, DrawError> {
        let sequencer = self.ids.sequencer();
        let sequencer = sequencer.as_deref().ok_or(DrawError::BeyondMark)?;
        // Another window may have been taken since the last round: its IDs lie elsewhere, and an answer ascends.
        if values.last().is_some_and(|last| !sequencer.draws_above(last)) {
            *values = Ranges::new();
        }
        self.draw(sequencer, u64::from(count) - values.count(), values)
    }

    /// Draws up to `count`; answers how many are missing.
    fn draw(&self, sequencer: &Sequencer, count: u64, values: &mut Ranges) -> Result<u64, DrawError> {
        let drawn = sequencer.draw(self.ids.now(), count)?;
        sequencer.ids(&drawn, values);
        Ok(count - drawn.count())
    }
}

fn within_bounds(order: &Order<'_>, values: &Ranges) -> Result<(), IssueError> {
    match values.last() {
        Some(last) if last > order.bounds.max => Err(overflow(order)),
        Some(_) | None => Ok(()),
    }
}

impl From<DrawError> for IssueError {
    fn from(error: DrawError) -> Self {
        match error {
            // Only reached by callers that cannot wait.
            DrawError::Wait(_) | DrawError::BeyondMark => Self::NoWindow,
            DrawError::TimeExhausted => Self::TimeExhausted,
        }
    }
}

impl From<crate::store::StoreError> for IssueError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Store(std::sync::Arc::new(error))
    }
}
