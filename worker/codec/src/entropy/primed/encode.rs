//! An encoder of short streams: it takes the steps that are cheapest together by the prices of the moment.

use super::super::literals::RangeEncoder;
use super::matches::{GOOD_MATCH, Match, MatchFinder, common};
use super::model::{BitCoder, LzmaModel, LzmaStep, MIN_MATCH, Past, REPEATS, StepSource};
use super::prices::{KindPrices, Prices, literal};

impl BitCoder for RangeEncoder {
    fn bit(&mut self, chance: &mut u16, bit: u32) -> u32 {
        self.put(chance, bit);
        bit
    }

    fn even_bit(&mut self, bit: u32) -> u32 {
        self.put_even(bit);
        bit
    }
}

/// The bytes that are looked at together, and those of them that are coded before prices are made again.
const WINDOW: usize = 512;
const CODED: usize = 448;

/// Bytes to encode after others, with their matches.
pub(super) struct MatchedBytes {
    bytes: Vec<u8>,
    start: usize,
    matches: Vec<Match>,
    /// For each byte the end of its matches.
    ends: Vec<usize>,
}

impl MatchedBytes {
    /// `raw` after `before`, whose places `finder` has.
    pub(super) fn new(before: &[u8], finder: &MatchFinder, raw: &[u8]) -> Self {
        let bytes = [before, raw].concat();
        let mut finder = finder.clone();
        let (mut matches, mut ends) = (Vec::new(), Vec::with_capacity(raw.len()));
        // The bytes of a match that is taken whole need no matches of their own.
        let mut taken_until = 0;
        for at in before.len()..bytes.len() {
            if at < taken_until {
                finder.skip(&bytes, at);
            } else {
                let known = matches.len();
                finder.find(&bytes, at, &mut matches);
                if let Some((len, _)) = matches[known..].last()
                    && *len >= GOOD_MATCH
                {
                    taken_until = at + len;
                }
            }
            ends.push(matches.len());
        }
        Self {
            start: before.len(),
            bytes,
            matches,
            ends,
        }
    }

    fn matches_at(&self, at: usize) -> &[Match] {
        let number = at - self.start;
        let first = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.matches[first..self.ends[number]]
    }

    /// The bytes as the range coder of LZMA writes them.
    pub(super) fn encode(&self, mut model: LzmaModel) -> Vec<u8> {
        let mut coder = RangeEncoder::new();
        let mut at = self.start;
        let mut nodes = Vec::new();
        while at < self.bytes.len() {
            let steps = match self.good_match(at, &self.repeats(at, &model.past)) {
                Some(step) => vec![step],
                None => self.cheapest(at, &model, &mut nodes),
            };
            let until = at + CODED;
            for step in steps {
                if at >= until {
                    break;
                }
                model.code(&mut coder, &self.bytes[..at], (step, self.bytes[at]));
                at += step.len;
            }
        }
        coder.finish()
    }

    /// The number of bytes at `at` that repeat those at each of the last distances.
    fn repeats(&self, at: usize, past: &Past) -> [usize; REPEATS] {
        past.distances.map(|distance| self.repeated(at, distance))
    }

    /// A step of many bytes, if there is one.
    fn good_match(&self, at: usize, repeats: &[usize; REPEATS]) -> Option<LzmaStep> {
        let repeats = repeats.iter().enumerate();
        let repeats = repeats.map(|(number, &len)| (len, StepSource::Repeat(number)));
        let repeat = repeats.max_by_key(|(len, _)| *len);
        let last = self.matches_at(at).last();
        let found = last.map(|&(len, distance)| (len, StepSource::Distance(distance)));
        let both = [found, repeat].into_iter().flatten();
        let (len, from) = both.max_by_key(|(len, _)| *len)?;
        (len >= GOOD_MATCH).then_some(LzmaStep { len, from })
    }

    /// The number of bytes at `at` that repeat those at a distance.
    fn repeated(&self, at: usize, distance: u32) -> usize {
        let place = at.checked_sub(1 + distance as usize);
        place.map_or(0, |place| common(&self.bytes, place, at))
    }

    /// The cheapest steps from `start` to the end of the window, or to the first place in it from where a step takes many bytes.
    fn cheapest(
        &self,
        start: usize,
        model: &LzmaModel,
        nodes: &mut Vec<ParseNode>,
    ) -> Vec<LzmaStep> {
        let window = WINDOW.min(self.bytes.len() - start);
        let prices = Prices::of(model);
        nodes.clear();
        nodes.resize(window + 1, ParseNode::UNREACHED);
        nodes[0] = ParseNode {
            cost: 0,
            past: model.past,
            step: LzmaStep::default(),
        };
        let mut end = window;
        for number in 0..window {
            if number > 0 {
                let step = nodes[number].step;
                nodes[number].past = nodes[number - step.len].past.after(step);
            }
            let repeats = self.repeats(start + number, &nodes[number].past);
            if number > 0 && self.good_match(start + number, &repeats).is_some() {
                end = number;
                break;
            }
            self.relax(start, (number, &repeats), (model, &prices), nodes);
        }
        let mut steps = Vec::new();
        while end > 0 {
            let step = nodes[end].step;
            steps.push(step);
            end -= step.len;
        }
        steps.reverse();
        steps
    }

    /// Tries every step from a node.
    fn relax(
        &self,
        start: usize,
        (number, repeats): (usize, &[usize; REPEATS]),
        (model, prices): (&LzmaModel, &Prices),
        nodes: &mut [ParseNode],
    ) {
        let ParseNode { cost, past, .. } = nodes[number];
        let at = start + number;
        let left = nodes.len() - 1 - number;
        let kinds = KindPrices::of(model, &past);
        let mut try_step = |cost: u32, len: usize, from: StepSource| {
            let node = &mut nodes[number + len];
            if cost < node.cost {
                node.cost = cost;
                node.step = LzmaStep { len, from };
            }
        };
        let byte = self.bytes[at];
        let as_literal = literal(model, &self.bytes[..at], &past, byte);
        try_step(cost + kinds.literal + as_literal, 1, StepSource::Literal);
        for (repeat, &longest) in repeats.iter().enumerate() {
            let longest = longest.min(left);
            if repeat == 0 && longest > 0 {
                try_step(cost + kinds.short, 1, StepSource::Repeat(0));
            }
            for len in MIN_MATCH..=longest {
                let price = kinds.repeats[repeat] + prices.of_repeat(len);
                try_step(cost + price, len, StepSource::Repeat(repeat));
            }
        }
        let mut len = MIN_MATCH;
        for &(longest, distance) in self.matches_at(at) {
            while len <= longest.min(left) {
                let price = kinds.distance + prices.of_match(len, distance);
                try_step(cost + price, len, StepSource::Distance(distance));
                len += 1;
            }
        }
    }
}

/// The cheapest way to a place.
#[derive(Clone, Copy)]
struct ParseNode {
    cost: u32,
    /// The step that ends here.
    step: LzmaStep,
    past: Past,
}

impl ParseNode {
    const UNREACHED: Self = Self {
        cost: u32::MAX,
        step: LzmaStep {
            len: 1,
            from: StepSource::Literal,
        },
        past: Past {
            state: 0,
            distances: [0; 4],
        },
    };
}
