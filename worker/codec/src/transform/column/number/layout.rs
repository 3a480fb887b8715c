//! Layouts of integers: byte planes, fixed-width rows, buckets with packed low bits, base-N digits, and
//! several small integers in a byte. Packed bits have no statistical structure and are stored.

use super::super::context::{EncodeContext, EncodedColumn};
use crate::transform::choices::{Choice, LayoutChoice};
use crate::{
    Damage, Effort, FormatVersion,
    bits::{BitReader, BitWriter},
    bytes::{FieldReader, put_varint, unzigzag, zigzag},
    entropy::cost::{Entropy, entropy_bytes_of, literals_bytes},
    transform::streams::{Extent, RawStream, StreamKind, StreamSource},
};

/// The map from signed to unsigned integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignMapping {
    /// 0, -1, 1, -2, 2 …
    Zigzag,
    /// Minus the smallest.
    From(i64),
}

impl SignMapping {
    fn apply(self, number: i64) -> u64 {
        match self {
            Self::Zigzag => zigzag(number),
            Self::From(smallest) => number.wrapping_sub(smallest) as u64,
        }
    }

    fn undo(self, number: u64) -> i64 {
        match self {
            Self::Zigzag => unzigzag(number),
            Self::From(smallest) => smallest.wrapping_add(number as i64),
        }
    }

    fn put(self, plan: &mut Vec<u8>) {
        match self {
            Self::Zigzag => plan.push(0),
            Self::From(smallest) => {
                plan.push(1);
                put_varint(plan, zigzag(smallest));
            }
        }
    }

    fn read(plan: &mut FieldReader<'_>) -> Result<Self, Damage> {
        match plan.byte()? {
            0 => Ok(Self::Zigzag),
            1 => Ok(Self::From(unzigzag(plan.varint()?))),
            _ => Err(Damage::new("numbers with an unknown sign mapping")),
        }
    }

    /// The smaller cost of both mappings.
    fn smaller(numbers: &[i64], cost: impl Fn(Self) -> usize) -> usize {
        let [zigzag, smallest] = Self::both(numbers);
        cost(zigzag).min(cost(smallest))
    }

    fn both(numbers: &[i64]) -> [Self; 2] {
        let smallest = numbers.iter().copied().min().unwrap_or(0);
        [Self::Zigzag, Self::From(smallest)]
    }
}

fn unsigned(numbers: &[i64], sign: SignMapping) -> Vec<u64> {
    numbers.iter().map(|&number| sign.apply(number)).collect()
}

/// Version 2: added to a layout if the smallest integer follows.
const BY_SMALLEST: u8 = 0x10;
const PLANES: u8 = 0;
const ROWS: u8 = 1;
const BUCKETS: u8 = 2;
const DIGITS: u8 = 3;
const GROUPS: u8 = 4;

/// An estimate of the size of integers in bytes: the entropy of their bytes or of their buckets.
pub(super) fn estimate(numbers: &[i64]) -> usize {
    SignMapping::smaller(numbers, |sign| {
        let some = unsigned(numbers, sign);
        let planes = (0..width_of(&some))
            .map(|plane| entropy_bytes_of(bytes_of(&some, plane)))
            .sum::<usize>();
        planes.min(Buckets(2).estimate(&some))
    })
}

/// The bits of all integers without their leading zeros: a quick measure that tells little of few values that repeat.
pub(super) fn bits(numbers: &[i64]) -> usize {
    SignMapping::smaller(numbers, |sign| {
        let each = numbers
            .iter()
            .map(|&number| u64::BITS - sign.apply(number).leading_zeros());
        each.sum::<u32>() as usize
    })
}

/// The place of the choice of a layout.
const INTEGERS: u64 = u64::MAX - 2;

/// Appends integers in the layout that was chosen before, or with the smallest size on a sample.
pub(crate) fn put(numbers: &[i64], context: &EncodeContext<'_>, column: &mut EncodedColumn) {
    if let Some(&Choice::Integers(choice, zigzag)) = context.choice(INTEGERS) {
        let [by_zigzag, by_smallest] = SignMapping::both(numbers);
        let sign = if zigzag { by_zigzag } else { by_smallest };
        let mapped = unsigned(numbers, sign);
        if let Some(layout) = IntegerLayout::chosen(choice, sign, &mapped) {
            layout.put_all(sign, &mapped, context.version, column);
            return;
        }
    }
    search(numbers, context, column);
}

fn search(numbers: &[i64], context: &EncodeContext<'_>, column: &mut EncodedColumn) {
    let effort = context.effort;
    let sampled = match effort {
        Effort::Fast => sample_len(numbers.len(), 4096),
        Effort::Balanced => sample_len(numbers.len(), 6144),
        Effort::Max => usize::MAX,
    };
    let start = numbers.len().saturating_sub(sampled) / 2;
    let end = numbers.len().min(start.saturating_add(sampled));
    let mut best: Option<(usize, SignMapping, IntegerLayout)> = None;
    for sign in SignMapping::both(numbers) {
        let some = unsigned(numbers, sign);
        for layout in layouts(&some, sign, effort) {
            let mut tried = EncodedColumn::default();
            layout.put(&some[start..end], &mut tried);
            let smallest = best.as_ref().map_or(usize::MAX, |(smallest, ..)| *smallest);
            if let Some(cost) = tried.cost_below(smallest, context.cost_basis()) {
                best = Some((cost, sign, layout));
            }
        }
    }
    if let Some((_, sign, layout)) = best {
        layout.put_all(sign, &unsigned(numbers, sign), context.version, column);
        let zigzag = sign == SignMapping::Zigzag;
        column.choices.push((
            context.key.child(INTEGERS),
            Choice::Integers(layout.choice(), zigzag),
        ));
    }
}

enum IntegerLayout {
    Planes,
    Rows,
    Buckets(Buckets),
    /// With this base.
    Digits(u64),
    RadixGroups(RadixGroups),
}

/// The candidates: planes always; buckets with the best precision on a sample.
fn layouts(numbers: &[u64], sign: SignMapping, effort: Effort) -> Vec<IntegerLayout> {
    let width = width_of(numbers);
    let mut found = vec![IntegerLayout::Planes];
    if width > 1 && sign == SignMapping::Zigzag {
        found.push(IntegerLayout::Rows);
    }
    let largest = numbers.iter().copied().max().unwrap_or(0);
    if numbers.len() >= MIN_PACKED && largest > 0 {
        let len = match effort {
            Effort::Fast | Effort::Balanced => sample_len(numbers.len(), SAMPLE_LEN),
            Effort::Max => numbers.len().min(SAMPLE_LEN),
        };
        let start = (numbers.len() - len) / 2;
        let some = &numbers[start..start + len];
        let best_buckets = precisions(effort)
            .iter()
            .map(|&fine| Buckets(fine))
            .filter(|buckets| buckets.of(largest).0 < 256)
            .min_by_key(|buckets| {
                let (coded, below): (Vec<u8>, Vec<u32>) = some
                    .iter()
                    .map(|&number| buckets.of(number))
                    .map(|(bucket, below)| (bucket as u8, below))
                    .unzip();
                literals_bytes(&coded) + (below.iter().sum::<u32>() as usize).div_ceil(8)
            });
        found.extend(best_buckets.map(IntegerLayout::Buckets));
        found.extend(RadixGroups::best(some, largest).map(IntegerLayout::RadixGroups));
        if matches!(sign, SignMapping::From(_)) && largest < u64::MAX {
            found.push(IntegerLayout::Digits(largest + 1));
        }
    }
    found
}

/// The precisions of buckets to try.
fn precisions(effort: Effort) -> &'static [u32] {
    match effort {
        Effort::Fast => &[2, 4],
        Effort::Balanced => &[1, 2, 3, 4],
        Effort::Max => &[0, 1, 2, 3, 4, MAX_PRECISION],
    }
}

/// The number of integers on which parameters are compared.
const SAMPLE_LEN: usize = 4096;
/// The number of integers on which candidates are compared, of `len` and at most `most`: the search of a small column must not
/// cost more than its coding.
fn sample_len(len: usize, most: usize) -> usize {
    const LEAST: usize = 512;
    len.min((len / 4).clamp(LEAST, most))
}

/// Fewer integers do not repay layouts with parameters.
const MIN_PACKED: usize = 32;

impl IntegerLayout {
    /// The layout of a choice, if these numbers fit it.
    fn chosen(choice: LayoutChoice, sign: SignMapping, numbers: &[u64]) -> Option<Self> {
        let largest = numbers.iter().copied().max().unwrap_or(0);
        match choice {
            LayoutChoice::Planes => Some(Self::Planes),
            LayoutChoice::Rows => Some(Self::Rows),
            LayoutChoice::Buckets(precision) => {
                let buckets = Buckets(u32::from(precision).min(MAX_PRECISION));
                (buckets.of(largest).0 < 256).then_some(Self::Buckets(buckets))
            }
            LayoutChoice::Digits => (matches!(sign, SignMapping::From(_))
                && (1..u64::MAX).contains(&largest))
            .then(|| Self::Digits(largest + 1)),
            LayoutChoice::Groups(together) => {
                let base = (largest + 1).max(2);
                let fits = largest < RadixGroups::LARGEST_BASE
                    && (1..=8).contains(&together)
                    && base.pow(together.into()) <= 256;
                let groups = RadixGroups {
                    base: base as u8,
                    together,
                };
                fits.then_some(Self::RadixGroups(groups))
            }
        }
    }

    /// Appends the sign mapping, the layout and the integers. Version 2 has one byte for both.
    fn put_all(
        &self,
        sign: SignMapping,
        numbers: &[u64],
        version: FormatVersion,
        column: &mut EncodedColumn,
    ) {
        let start = column.plan.len();
        if version == FormatVersion::V1 {
            sign.put(&mut column.plan);
            self.put(numbers, column);
            return;
        }
        self.put(numbers, column);
        if let SignMapping::From(smallest) = sign {
            column.plan[start] |= BY_SMALLEST;
            put_varint(&mut column.plan, zigzag(smallest));
        }
    }

    fn choice(&self) -> LayoutChoice {
        match self {
            Self::Planes => LayoutChoice::Planes,
            Self::Rows => LayoutChoice::Rows,
            Self::Buckets(buckets) => LayoutChoice::Buckets(buckets.0 as u8),
            Self::Digits(_) => LayoutChoice::Digits,
            Self::RadixGroups(groups) => LayoutChoice::Groups(groups.together),
        }
    }

    fn put(&self, numbers: &[u64], column: &mut EncodedColumn) {
        let width = width_of(numbers);
        match self {
            Self::Planes => {
                column.plan.extend([PLANES, width as u8]);
                for plane in (0..width).rev() {
                    push(column, "plane", StreamKind::Bytes, plane_of(numbers, plane));
                }
            }
            Self::Rows => {
                column.plan.extend([ROWS, width as u8]);
                let bytes = numbers
                    .iter()
                    .flat_map(|number| number.to_be_bytes()[8 - width..].to_vec())
                    .collect();
                push(column, "rows", StreamKind::Rows(alignment(width)), bytes);
            }
            Self::Buckets(buckets) => buckets.put(numbers, column),
            Self::RadixGroups(groups) => groups.put(numbers, column),
            Self::Digits(base) => {
                column.plan.push(DIGITS);
                put_varint(&mut column.plan, *base);
                push(
                    column,
                    "digits",
                    StreamKind::Packed,
                    put_digits(numbers, *base),
                );
            }
        }
    }
}

fn push(column: &mut EncodedColumn, coding: &'static str, kind: StreamKind, bytes: Vec<u8>) {
    column.streams.push(RawStream::new(coding, kind, bytes));
}

/// The alignment of integers of `width` bytes, for the coder.
fn alignment(width: usize) -> u8 {
    if width.is_power_of_two() {
        width as u8
    } else {
        1
    }
}

fn width_of(numbers: &[u64]) -> usize {
    let all = numbers.iter().fold(0, |all, number| all | number);
    (8 - all.leading_zeros() as usize / 8).max(1)
}

fn plane_of(numbers: &[u64], plane: usize) -> Vec<u8> {
    bytes_of(numbers, plane).collect()
}

fn bytes_of(numbers: &[u64], plane: usize) -> impl Iterator<Item = u8> {
    numbers
        .iter()
        .map(move |number| (number >> (8 * plane)) as u8)
}

/// The largest precision of buckets: 2 to the power of this in each doubling.
const MAX_PRECISION: u32 = 5;

/// Ranges that grow with the number: each doubling is divided into 2 to the power of this. The bucket
/// number goes to a coder; the offset in it is nearly random and packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Buckets(u32);

impl Buckets {
    /// The bucket of a number, and the number of low bits.
    fn of(self, number: u64) -> (u32, u32) {
        let fine = self.0;
        if number < 2 << fine {
            return (number as u32, 0);
        }
        let below = number.ilog2() - fine;
        let within = (number >> below) as u32 & ((1 << fine) - 1);
        (((below + 1) << fine) + within, below)
    }

    /// The smallest number of a bucket, and the number of low bits.
    fn start(self, bucket: u32) -> Result<(u64, u32), Damage> {
        let fine = self.0;
        if bucket < 2 << fine {
            return Ok((u64::from(bucket), 0));
        }
        let below = (bucket >> fine) - 1;
        if below + fine > 63 {
            return Err(Damage::new("a bucket of numbers beyond 64 bits"));
        }
        let within = u64::from(bucket & ((1 << fine) - 1));
        Ok(((within | 1 << fine) << below, below))
    }

    fn estimate(self, numbers: &[u64]) -> usize {
        let mut coded = Entropy::default();
        let mut bits = 0;
        for &number in numbers {
            let (bucket, below) = self.of(number);
            coded.add(bucket as u8);
            bits += u64::from(below);
        }
        ((coded.bits() + bits as f64) / 8.0) as usize + 1
    }

    fn put(self, numbers: &[u64], column: &mut EncodedColumn) {
        column.plan.extend([BUCKETS, self.0 as u8]);
        let (buckets, bits) = self.split(numbers);
        push(column, "buckets", StreamKind::Bytes, buckets);
        push(column, "bits", StreamKind::Packed, bits);
    }

    /// The buckets, and the low bits.
    fn split(self, numbers: &[u64]) -> (Vec<u8>, Vec<u8>) {
        let mut bits = BitWriter::default();
        let mut buckets = Vec::with_capacity(numbers.len());
        for &number in numbers {
            let (bucket, below) = self.of(number);
            buckets.push(bucket as u8);
            bits.put(u128::from(number), below);
        }
        (buckets, bits.finish())
    }

    fn read(self, count: usize, source: &mut StreamSource) -> Result<Vec<u64>, Damage> {
        let buckets = source.next("buckets", StreamKind::Bytes, Extent::Bytes(count))?;
        if buckets.len() != count {
            return Err(Damage::new(
                "the number of buckets does not match the column",
            ));
        }
        let low_bits = buckets.iter().try_fold(0usize, |sum, &bucket| {
            let (_, below) = self.start(u32::from(bucket))?;
            Ok::<_, Damage>(sum + below as usize)
        })?;
        let extent = Extent::Bytes(low_bits.div_ceil(8));
        let bits = source.next("bits", StreamKind::Packed, extent)?;
        let mut bits = BitReader::new(&bits);
        let numbers = buckets
            .into_iter()
            .map(|bucket| {
                let (start, below) = self.start(u32::from(bucket))?;
                Ok(start | bits.take(below)?)
            })
            .collect::<Result<_, Damage>>()?;
        bits.finish()?;
        Ok(numbers)
    }
}

/// Several small numbers in a byte: a byte coder loses less on them together than one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RadixGroups {
    base: u8,
    /// Numbers in a byte, the first in the highest digit.
    together: u8,
}

impl RadixGroups {
    const LARGEST_BASE: u64 = 16;

    /// The best number of them in a byte, at least two.
    fn best(some: &[u64], largest: u64) -> Option<Self> {
        if largest >= Self::LARGEST_BASE {
            return None;
        }
        let base = (largest + 1).max(2);
        (2..=8u8)
            .filter(|&together| base.pow(together.into()) <= 256)
            .map(|together| Self {
                base: base as u8,
                together,
            })
            .min_by_key(|groups| literals_bytes(&groups.join(some)))
    }

    fn join(self, numbers: &[u64]) -> Vec<u8> {
        let groups = numbers.chunks(usize::from(self.together));
        groups
            .map(|group| {
                let missing = u32::from(self.together) - group.len() as u32;
                let joined = group.iter().fold(0u64, |joined, number| {
                    joined * u64::from(self.base) + number
                });
                (joined * u64::from(self.base).pow(missing)) as u8
            })
            .collect()
    }

    fn put(self, numbers: &[u64], column: &mut EncodedColumn) {
        column.plan.extend([GROUPS, self.base, self.together]);
        push(column, "groups", StreamKind::Bytes, self.join(numbers));
    }

    fn read(
        count: usize,
        plan: &mut FieldReader<'_>,
        source: &mut StreamSource,
    ) -> Result<Vec<u64>, Damage> {
        let (base, together) = (u64::from(plan.byte()?), plan.byte()?);
        if !(2..=Self::LARGEST_BASE).contains(&base)
            || !(1..=8).contains(&together)
            || base.pow(together.into()) > 256
        {
            return Err(Damage::new("groups of numbers out of range"));
        }
        let together = usize::from(together);
        let extent = Extent::Bytes(count.div_ceil(together));
        let bytes = source.next("groups", StreamKind::Bytes, extent)?;
        if bytes.len() != count.div_ceil(together) {
            return Err(Damage::new(
                "the number of groups does not match the column",
            ));
        }
        let mut numbers = vec![0; count];
        for (group, byte) in numbers.chunks_mut(together).zip(bytes) {
            let mut joined = u64::from(byte);
            for _ in group.len()..together {
                joined /= base;
            }
            for number in group.iter_mut().rev() {
                *number = joined % base;
                joined /= base;
            }
        }
        Ok(numbers)
    }
}

/// The number of digits in one packed number: as many as 128 bits hold, so that little of a bit is lost.
fn digits_together(base: u64) -> usize {
    let mut most = 1u128;
    let mut count = 0;
    while count < 128 {
        match most.checked_mul(u128::from(base)) {
            Some(more) => most = more,
            None => break,
        }
        count += 1;
    }
    count.max(1)
}

/// The width of `digits` digits in bits: enough for the largest number.
fn bits_of(base: u64, digits: usize) -> u32 {
    let largest = (0..digits).fold(0u128, |number, _| {
        number
            .wrapping_mul(u128::from(base))
            .wrapping_add(u128::from(base - 1))
    });
    128 - largest.leading_zeros()
}

fn put_digits(numbers: &[u64], base: u64) -> Vec<u8> {
    let mut bits = BitWriter::default();
    for group in numbers.chunks(digits_together(base)) {
        let number = group.iter().fold(0u128, |number, &digit| {
            number
                .wrapping_mul(u128::from(base))
                .wrapping_add(u128::from(digit))
        });
        bits.put(number, bits_of(base, group.len()));
    }
    bits.finish()
}

fn read_digits(count: usize, base: u64, source: &mut StreamSource) -> Result<Vec<u64>, Damage> {
    if base < 2 {
        return Err(Damage::new("digits with a base below two"));
    }
    let together = digits_together(base);
    let (whole, rest) = (bits_of(base, together), bits_of(base, count % together));
    let needed = (count / together) as u64 * u64::from(whole) + u64::from(rest);
    let extent = Extent::Bytes(needed.div_ceil(8) as usize);
    let bytes = source.next("digits", StreamKind::Packed, extent)?;
    if bytes.len() as u64 != needed.div_ceil(8) {
        return Err(Damage::new(
            "the number of digits does not match the column",
        ));
    }
    let mut bits = BitReader::new(&bytes);
    let mut numbers = vec![0u64; count];
    for group in numbers.chunks_mut(together) {
        let width = if group.len() == together { whole } else { rest };
        let mut number = bits.take_wide(width)?;
        for digit in group.iter_mut().rev() {
            *digit = (number % u128::from(base)) as u64;
            number /= u128::from(base);
        }
        if number > 0 {
            return Err(Damage::new("digits above their base"));
        }
    }
    Ok(numbers)
}

/// Reads `count` integers.
pub(crate) fn read(
    count: usize,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
) -> Result<Vec<i64>, Damage> {
    if source.version == FormatVersion::V2 {
        let byte = plan.byte()?;
        let numbers = read_layout(byte & !BY_SMALLEST, count, plan, source)?;
        let sign = match byte & BY_SMALLEST {
            0 => SignMapping::Zigzag,
            _ => SignMapping::From(unzigzag(plan.varint()?)),
        };
        return Ok(numbers
            .into_iter()
            .map(|number| sign.undo(number))
            .collect());
    }
    let sign = SignMapping::read(plan)?;
    let layout = plan.byte()?;
    let numbers = read_layout(layout, count, plan, source)?;
    Ok(numbers
        .into_iter()
        .map(|number| sign.undo(number))
        .collect())
}

fn read_layout(
    layout: u8,
    count: usize,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
) -> Result<Vec<u64>, Damage> {
    match layout {
        PLANES => read_planes(count, width(plan)?, source),
        ROWS => read_rows(count, width(plan)?, source),
        BUCKETS => Buckets(plan.size(MAX_PRECISION as usize, "the precision of buckets")? as u32)
            .read(count, source),
        GROUPS => RadixGroups::read(count, plan, source),
        DIGITS => read_digits(count, plan.varint()?, source),
        _ => Err(Damage::new("numbers in an unknown layout")),
    }
}

fn width(plan: &mut FieldReader<'_>) -> Result<usize, Damage> {
    let width = usize::from(plan.byte()?);
    if (1..=8).contains(&width) {
        Ok(width)
    } else {
        Err(Damage::new("numbers with a width out of range"))
    }
}

fn read_planes(count: usize, width: usize, source: &mut StreamSource) -> Result<Vec<u64>, Damage> {
    let mut numbers = vec![0u64; count];
    for _ in 0..width {
        let plane = source.next("plane", StreamKind::Bytes, Extent::Bytes(count))?;
        if plane.len() != count {
            return Err(Damage::new(
                "the length of a plane does not match the column",
            ));
        }
        for (number, byte) in numbers.iter_mut().zip(plane) {
            *number = *number << 8 | u64::from(byte);
        }
    }
    Ok(numbers)
}

fn read_rows(count: usize, width: usize, source: &mut StreamSource) -> Result<Vec<u64>, Damage> {
    let kind = StreamKind::Rows(alignment(width));
    let bytes = source.next("rows", kind, Extent::Bytes(count * width))?;
    if bytes.len() != count * width {
        return Err(Damage::new("the number of rows does not match the column"));
    }
    Ok(bytes
        .chunks_exact(width)
        .map(|row| {
            row.iter()
                .fold(0, |number, &byte| number << 8 | u64::from(byte))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::cost::MeasuredSizes;
    use crate::transform::choices::{ChoiceKey, Choices};

    fn check(numbers: &[i64]) {
        for sign in SignMapping::both(numbers) {
            let some = unsigned(numbers, sign);
            let mut all = layouts(&some, sign, Effort::Max);
            let largest = some.iter().copied().max().unwrap_or(0);
            if (1..u64::MAX).contains(&largest) {
                all.push(IntegerLayout::Digits(largest + 1));
            }
            for fine in 0..=MAX_PRECISION {
                if some.iter().all(|&number| Buckets(fine).of(number).0 < 256) {
                    all.push(IntegerLayout::Buckets(Buckets(fine)));
                }
            }
            for layout in all {
                let mut column = EncodedColumn::default();
                sign.put(&mut column.plan);
                layout.put(&some, &mut column);
                let mut source = StreamSource::of_raw(&[], &column.streams);
                let back = read(
                    numbers.len(),
                    &mut FieldReader::new(&column.plan),
                    &mut source,
                );
                assert_eq!(back.as_deref(), Ok(numbers), "{sign:?}");
                assert_eq!(source.finish(), Ok(()));
            }
        }
    }

    #[test]
    fn integers_round_trip_in_every_layout() {
        check(&[0]);
        check(&[i64::MIN, i64::MAX, 0, -1, 1]);
        check(&[5, 5, 5]);
        let mut rng = fastrand::Rng::with_seed(8);
        for range in [
            1,
            2,
            3,
            10,
            201,
            255,
            256,
            257,
            1 << 20,
            1 << 40,
            i64::MAX - 1,
        ] {
            let numbers: Vec<i64> = (0..500).map(|_| rng.i64(-range / 3..=range / 2)).collect();
            check(&numbers);
            check(&numbers[..127]);
        }
        check(&[i64::MIN, i64::MAX, 0].repeat(50));
    }

    #[test]
    fn every_bucket_starts_at_the_end_of_the_one_before() {
        for fine in 0..=MAX_PRECISION {
            let mut next = Some(0u64);
            for bucket in 0..(64 - fine) << fine {
                let (start, below) = Buckets(fine).start(bucket).expect("in range");
                assert_eq!(Some(start), next);
                assert_eq!(Buckets(fine).of(start), (bucket, below));
                next = start.checked_add(1 << below);
            }
        }
    }

    #[test]
    fn random_digits_take_their_entropy() {
        let mut rng = fastrand::Rng::with_seed(9);
        for base in [3i64, 10, 60, 201, 1000, 250_000] {
            let numbers: Vec<i64> = (0..20_000).map(|_| rng.i64(0..base)).collect();
            let mut column = EncodedColumn::default();
            let measured = MeasuredSizes::default();
            let choices = Choices::default();
            let refs = Default::default();
            let context = EncodeContext::new(
                Effort::Balanced,
                FormatVersion::V1,
                refs,
                ChoiceKey(0),
                &choices,
                &measured,
            );
            put(&numbers, &context, &mut column);
            let floor = 20_000.0 * (base as f64).log2() / 8.0;
            let cost = column.cost(context.cost_basis()) as f64;
            assert!(cost < floor * 1.012 + 20.0, "{base}: {cost} of {floor}");
        }
    }

    #[test]
    fn invalid_layouts_are_damage() {
        let streams = [RawStream::new("test", StreamKind::Bytes, vec![255; 4])];
        for plan in [
            &[0, DIGITS, 0][..],
            &[0, DIGITS, 1],
            &[0, DIGITS, 200],
            &[0, BUCKETS, 5],
            &[0, BUCKETS, 6],
            &[0, PLANES, 0],
            &[0, ROWS, 9],
            &[2, PLANES, 1],
            &[0, 4, 1],
            &[],
        ] {
            let mut source = StreamSource::of_raw(&[], &streams);
            assert!(
                read(3, &mut FieldReader::new(plan), &mut source).is_err(),
                "{plan:?}"
            );
        }
    }
}
